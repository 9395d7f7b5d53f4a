{{- define "trident.fullname" -}}
{{- if .Values.fullnameOverride }}{{ .Values.fullnameOverride | trunc 53 | trimSuffix "-" }}
{{- else }}{{ $name := default "trident" .Values.nameOverride }}
{{- if contains $name .Release.Name }}{{ .Release.Name | trunc 53 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name $name | trunc 53 | trimSuffix "-" }}{{ end }}{{ end }}
{{- end }}

{{- /* The labels that select pods. The argument is a list: the context and the component. */}}
{{- define "trident.selector" -}}
app.kubernetes.io/name: trident-serve
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "trident.labels" -}}
{{ include "trident.selector" . }}
app.kubernetes.io/version: {{ (index . 0).Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ (index . 0).Release.Service }}
helm.sh/chart: {{ printf "%s-%s" (index . 0).Chart.Name (index . 0).Chart.Version }}
{{- end }}

{{- define "trident.image" -}}
{{- $images := (index . 0).Values.images }}
{{- with $images.registry }}{{ . }}/{{ end }}{{ index $images (index . 1) }}:{{ default (index . 0).Chart.AppVersion $images.tag }}
{{- end }}

{{- define "trident.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- /* Of all pods: the user of the images. */}}
{{- define "trident.pod" -}}
automountServiceAccountToken: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.images.pullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* Where the pods with Triton may run. */}}
{{- define "trident.nodes" -}}
{{- with .Values.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "trident.frontendContainer" -}}
- name: frontend
  image: {{ include "trident.image" (list . "frontend") }}
  imagePullPolicy: {{ .Values.images.pullPolicy }}
  args:
    - serve
    - --host=0.0.0.0
    {{- if eq .Values.mode "pod" }}
    - --triton=127.0.0.1:8001
    {{- else }}
    - --discover={{ include "trident.fullname" . }}-triton.{{ .Release.Namespace }}.svc:8000
    {{- end }}
    - --model-repository={{ .Values.models.repository }}
    - --shutdown-delay={{ .Values.frontend.shutdownDelay }}
    - --drain-seconds={{ .Values.frontend.drainSeconds }}
    {{- if .Values.secrets.adminKey }}
    - --admin-key-file=/secrets/admin/admin-key
    {{- end }}
    {{- if .Values.secrets.stores }}
    - --pepper-file=/secrets/stores/pepper
    {{- end }}
    {{- range .Values.frontend.flags }}
    - {{ . | quote }}
    {{- end }}
  {{- if or .Values.secrets.stores .Values.frontend.env }}
  env:
    {{- with .Values.secrets.stores }}
    - name: TRIDENT_DATABASE_URL
      valueFrom: {secretKeyRef: {name: {{ . }}, key: database-url}}
    - name: TRIDENT_REDIS_URL
      valueFrom: {secretKeyRef: {name: {{ . }}, key: redis-url}}
    {{- end }}
    {{- with .Values.frontend.env }}{{ toYaml . | nindent 4 }}{{ end }}
  {{- end }}
  ports:
    - {name: http, containerPort: 10100}
  # It responds before its Triton does, and is ready when the models are.
  startupProbe:
    httpGet: {path: /actuator/health/liveness, port: http}
    periodSeconds: 2
    failureThreshold: 60
  livenessProbe:
    httpGet: {path: /actuator/health/liveness, port: http}
    periodSeconds: 10
    timeoutSeconds: 5
    failureThreshold: 6
  # In pod mode, all models must respond. Otherwise, one that no Triton has would take all others with it.
  readinessProbe:
    httpGet: {path: {{ ternary "/health" "/actuator/health/readiness" (eq .Values.mode "pod") }}, port: http}
    periodSeconds: 5
    timeoutSeconds: 5
  resources: {{ toYaml .Values.frontend.resources | nindent 4 }}
  securityContext: {{ include "trident.containerSecurity" . | nindent 4 }}
  volumeMounts:
    - {name: data, mountPath: /data}
    - {name: tmp, mountPath: /tmp}
    {{- if ne .Values.models.source "s3" }}
    {{- if or (eq .Values.mode "pod") (not .Values.models.volume.ephemeral) }}
    - {name: models, mountPath: /models, readOnly: true}
    {{- end }}
    {{- end }}
    {{- if .Values.secrets.adminKey }}
    - {name: admin-key, mountPath: /secrets/admin, readOnly: true}
    {{- end }}
    {{- if .Values.secrets.stores }}
    - {name: stores, mountPath: /secrets/stores, readOnly: true}
    {{- end }}
{{- end }}

{{- define "trident.frontendVolumes" -}}
- name: data
  {{- if and .Values.data.persistent (not .Values.secrets.stores) }}
  persistentVolumeClaim: {claimName: {{ include "trident.fullname" . }}-data}
  {{- else }}
  emptyDir: {}
  {{- end }}
- name: tmp
  emptyDir: {}
{{- with .Values.secrets.adminKey }}
- name: admin-key
  secret: {secretName: {{ . }}, defaultMode: 0440}
{{- end }}
{{- with .Values.secrets.stores }}
- name: stores
  secret: {secretName: {{ . }}, defaultMode: 0440, items: [{key: pepper, path: pepper}]}
{{- end }}
{{- end }}

{{- define "trident.exportContainer" -}}
- name: export
  image: {{ include "trident.image" (list . "export") }}
  imagePullPolicy: {{ .Values.images.pullPolicy }}
  args:
    - export
    {{- range concat .Values.models.names .Values.models.exportFlags }}
    - {{ . | quote }}
    {{- end }}
  {{- with .Values.models.env }}
  env: {{ toYaml . | nindent 4 }}
  {{- end }}
  resources: {{ toYaml .Values.triton.resources | nindent 4 }}
  securityContext: {{ include "trident.containerSecurity" . | nindent 4 }}
  volumeMounts:
    - {name: models, mountPath: /models}
    - {name: triton-tmp, mountPath: /tmp}
{{- end }}

{{- define "trident.tritonContainer" -}}
- name: triton
  image: {{ include "trident.image" (list . "triton") }}
  imagePullPolicy: {{ .Values.images.pullPolicy }}
  args: {{ concat (list "start-triton") .Values.triton.flags | toJson }}
  env:
    - name: TRIDENT_MODEL_REPOSITORY
      value: {{ ternary .Values.models.s3.url .Values.models.repository (eq .Values.models.source "s3") }}
    {{- with .Values.triton.env }}{{ toYaml . | nindent 4 }}{{ end }}
  {{- if and (eq .Values.models.source "s3") .Values.models.s3.secret }}
  envFrom:
    - secretRef: {name: {{ .Values.models.s3.secret }}}
  {{- end }}
  ports:
    - {name: triton-http, containerPort: 8000}
    - {name: triton-grpc, containerPort: 8001}
    - {name: triton-metrics, containerPort: 8002}
  startupProbe:
    httpGet: {path: /v2/health/ready, port: triton-http}
    periodSeconds: 5
    failureThreshold: {{ div .Values.triton.startupSeconds 5 }}
  # Triton is not ready any more if the process of a model has died, and only a new Triton starts another. A model that
  # is loaded again may take a while.
  livenessProbe:
    httpGet: {path: /v2/health/ready, port: triton-http}
    periodSeconds: 10
    timeoutSeconds: 5
    failureThreshold: 30
  readinessProbe:
    httpGet: {path: /v2/health/ready, port: triton-http}
    periodSeconds: 5
    timeoutSeconds: 5
  # Triton goes on while the frontends finish their requests.
  lifecycle:
    preStop:
      exec: {command: [sleep, {{ add .Values.frontend.shutdownDelay .Values.frontend.drainSeconds | quote }}]}
  {{- $resources := deepCopy .Values.triton.resources }}
  {{- if .Values.triton.gpus }}
  {{- $_ := set $resources "limits" (merge (dict .Values.triton.gpuResource .Values.triton.gpus) ($resources.limits | default dict)) }}
  {{- end }}
  resources: {{ toYaml $resources | nindent 4 }}
  securityContext: {{ include "trident.containerSecurity" . | nindent 4 }}
  volumeMounts:
    - {name: shm, mountPath: /dev/shm}
    - {name: triton-tmp, mountPath: /tmp}
    {{- if ne .Values.models.source "s3" }}
    - {name: models, mountPath: /models}
    {{- end }}
    # Of TensorRT, which onnxruntime builds at the first start. A volume with models that others made may be read-only.
    {{- if include "trident.keepsEngines" . }}
    - {name: models, mountPath: /engines, subPath: engines}
    {{- else }}
    - {name: engines, mountPath: /engines}
    {{- end }}
{{- end }}

{{- define "trident.keepsEngines" -}}
{{- if and .Values.triton.gpus (eq .Values.models.source "export") }}true{{ end }}
{{- end }}

{{- define "trident.tritonVolumes" -}}
{{- if not (include "trident.keepsEngines" .) }}
- name: engines
  emptyDir: {}
{{- end }}
- name: shm
  emptyDir: {medium: Memory, sizeLimit: {{ .Values.triton.sharedMemory }}}
- name: triton-tmp
  emptyDir: {}
{{- end }}

{{- define "trident.modelsVolume" -}}
{{- if ne .Values.models.source "s3" }}
- name: models
  {{- if .Values.models.volume.ephemeral }}
  emptyDir: {sizeLimit: {{ .Values.models.volume.size }}}
  {{- else }}
  persistentVolumeClaim: {claimName: {{ default (printf "%s-models" (include "trident.fullname" .)) .Values.models.volume.existingClaim }}}
  {{- end }}
{{- end }}
{{- end }}

{{- define "trident.gpuPod" -}}
{{- include "trident.nodes" . }}
{{- if .Values.triton.gpus }}
{{- with .Values.triton.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
tolerations:
  - {key: nvidia.com/gpu, operator: Exists, effect: NoSchedule}
  {{- with .Values.tolerations }}{{ toYaml . | nindent 2 }}{{ end }}
{{- else if .Values.tolerations }}
tolerations: {{ toYaml .Values.tolerations | nindent 2 }}
{{- end }}
{{- end }}

{{- /* Whether a volume can be used by one pod at a time, so that an update must stop the old one first. */}}
{{- define "trident.oneAtATime" -}}
{{- $models := .Values.models }}
{{- if or (include "trident.oneNode" .) (and .Values.data.persistent (not .Values.secrets.stores)) }}true{{ end }}
{{- end }}

{{- /* Whether the models are in a volume that only one node can use. */}}
{{- define "trident.oneNode" -}}
{{- $models := .Values.models }}
{{- if and (hasPrefix "ReadWriteOnce" $models.volume.accessMode) (ne $models.source "s3") (not $models.volume.ephemeral) }}true{{ end }}
{{- end }}

{{- define "trident.grace" -}}
terminationGracePeriodSeconds: {{ add .Values.frontend.shutdownDelay .Values.frontend.drainSeconds 20 }}
{{- end }}

{{- /* The component whose pods are scaled. */}}
{{- define "trident.scaled" -}}
{{ ternary "frontend" "triton" (eq .Values.mode "pod") }}
{{- end }}
