"""Runs the segmentation network, and combines waiting images into batches."""

import queue
import threading
from concurrent.futures import Future
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from backends.common.errors import EngineDown
from backends.common.network import open_network
from contract.parameters import SegmentationParameters

Mask = NDArray[np.float32]


class Network:
    """Finds the foreground of images. `submit` may be called from any thread."""

    def __init__(self, folder: Path, parameters: SegmentationParameters):
        path = folder / "model.onnx"
        self._network = open_network(path, parameters.device, parameters.threads, parameters.network)
        self._input = next(iter(self._network.inputs))
        self._size = parameters.size
        self._mean, self._std = (
            np.array(values, np.float32).reshape(3, 1, 1) for values in (parameters.mean, parameters.std)
        )
        self._sigmoid = parameters.sigmoid
        self._maximum = self._network.max_rows or parameters.batch_size
        self._waiting: queue.SimpleQueue[tuple[Mask, Future[Mask]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="network", daemon=True)
        self._thread.start()

    def submit(self, picture: Image.Image) -> "Future[Mask]":
        """Queue an RGB image. Return a future of its mask, which has the shape [size, size] and values from 0 to 1."""
        small = picture.resize((self._size, self._size), Image.Resampling.LANCZOS, reducing_gap=2.0)
        pixels = np.asarray(small, np.float32).transpose(2, 0, 1)
        scaled = (pixels / max(float(pixels.max()), 1e-6) - self._mean) / self._std
        mask: Future[Mask] = Future()
        self._waiting.put((scaled.astype(np.float32), mask))
        return mask

    def stop(self) -> None:
        """Finish the waiting images, then stop. No image may be submitted afterwards."""
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (first := self._waiting.get()) is not None:
            batch, more = [first], True
            while more and len(batch) < self._maximum and not self._waiting.empty():
                following = self._waiting.get()
                if following is None:
                    self._waiting.put(None)
                    more = False
                else:
                    batch.append(following)
            self._infer([b for b in batch if b[1].set_running_or_notify_cancel()])
        while not self._waiting.empty():
            if (waiting := self._waiting.get()) is not None:
                waiting[1].set_exception(EngineDown("The model is being unloaded"))

    def _infer(self, batch: list[tuple[Mask, "Future[Mask]"]]) -> None:
        if not batch:
            return
        try:
            output = self._network.run({self._input: np.stack([pixels for pixels, _ in batch])})
            masks = [self._stretch(mask) for mask in output[:, 0]]
        except BaseException as error:  # this thread must not die
            for _, future in batch:
                future.set_exception(error)
            return
        for mask, (_, future) in zip(masks, batch, strict=True):
            future.set_result(mask)

    def _stretch(self, mask: Mask) -> Mask:
        """Return the mask, after a sigmoid if configured, rescaled so that it spans 0 to 1, as in rembg."""
        if self._sigmoid:
            mask = 1 / (1 + np.exp(-mask))
        minimum, maximum = float(mask.min()), float(mask.max())
        stretched: Mask = (mask - minimum) / max(maximum - minimum, 1e-6)
        return stretched
