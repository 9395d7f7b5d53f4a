"""The encoder's tokenizer, batching and pooling, with a small word-level tokenizer."""

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from backends.common.errors import InvalidRequest
from backends.encoder.network import POOLINGS, normalize, plan
from backends.encoder.request import EncodeRequest, tokenize
from backends.encoder.tokens import TextTokenizer

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefgh", "yes", "no", "Q:", "D:", "?"]


@pytest.fixture
def path(tmp_path):
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokenizer.enable_padding(length=32)  # as in published tokenizer files; the encoder must ignore both settings
    tokenizer.enable_truncation(3)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


def words(tokens):
    return [WORDS[i] for i in tokens.ids]


def encode_one(tokenizer, text, truncate=False):
    (result,) = tokenizer.encode([text], [truncate])
    return result


class TestTokens:
    def test_special_tokens_are_added(self, path):
        assert words(encode_one(TextTokenizer(path, 8), "a b c")) == ["[CLS]", "a", "b", "c", "[SEP]"]

    def test_a_pair_has_token_types(self, path):
        tokens = encode_one(TextTokenizer(path, 8), ("a", "b c"))
        assert words(tokens) == ["[CLS]", "a", "[SEP]", "b", "c", "[SEP]"]
        assert tokens.types == [0, 0, 0, 1, 1, 1]

    def test_error_for_a_text_that_is_too_long_states_the_limit_and_its_length(self, path):
        failure = encode_one(TextTokenizer(path, 5), "a b c d")
        assert isinstance(failure, InvalidRequest)
        assert "5 tokens" in str(failure)
        assert "has 6." in str(failure)
        assert failure.code == "context_length_exceeded"

    def test_the_maximum_length_is_accepted(self, path):
        assert len(encode_one(TextTokenizer(path, 5), "a b c").ids) == 5

    def test_truncation_keeps_the_special_tokens(self, path):
        tokens = encode_one(TextTokenizer(path, 5), "a b c d e", truncate=True)
        assert words(tokens) == ["[CLS]", "a", "b", "c", "[SEP]"]

    def test_truncation_of_a_pair_shortens_the_document(self, path):
        tokens = encode_one(TextTokenizer(path, 7), ("a b", "c d e f g"), truncate=True)
        assert words(tokens) == ["[CLS]", "a", "b", "[SEP]", "c", "d", "[SEP]"]

    def test_truncation_of_a_pair_with_a_long_query_shortens_both(self, path):
        tokens = encode_one(TextTokenizer(path, 5), ("a b c", "d"), truncate=True)
        assert words(tokens) == ["[CLS]", "a", "[SEP]", "d", "[SEP]"]
        tokens = encode_one(TextTokenizer(path, 9), ("a b c d e f g", "d e f g a b c"), truncate=True)
        assert words(tokens) == ["[CLS]", "a", "b", "c", "[SEP]", "d", "e", "f", "[SEP]"]
        tokens = encode_one(TextTokenizer(path, 9), ("a b c d e f g", "d"), truncate=True)
        assert words(tokens) == ["[CLS]", "a", "b", "c", "[SEP]", "d", "[SEP]"]

    def test_a_template_is_filled_in_and_its_end_is_kept(self, path):
        tokenizer = TextTokenizer(path, 8, "Q: {query} D: {document} ? yes")
        assert words(encode_one(tokenizer, ("a", "b"))) == ["Q:", "a", "D:", "b", "?", "yes"]
        assert words(encode_one(tokenizer, ("a", "b c d e f"), True)) == ["Q:", "a", "D:", "b", "c", "d", "?", "yes"]
        assert "has 10." in str(encode_one(tokenizer, ("a", "b c d e f")))

    def test_truncation_of_a_long_query_keeps_the_template(self, path):
        tokens = encode_one(TextTokenizer(path, 8, "Q: {query} D: {document} ? yes"), ("a b c d e", "f"), True)
        assert words(tokens) == ["Q:", "a", "b", "D:", "f", "?", "yes"]

    def test_bytes_too_few_for_one_token_id_are_rejected(self, path):
        assert isinstance(TextTokenizer(path, 8).check_ids(b"abc"), InvalidRequest)

    def test_a_placeholder_in_a_query_is_not_filled_in(self, path):
        tokenizer = TextTokenizer(path, 8, "Q: {query} D: {document} ?")
        assert words(encode_one(tokenizer, ("{document}", "a"))) == ["Q:", "[UNK]", "D:", "a", "?"]

    @pytest.mark.parametrize("ids", [[], [-1], [len(WORDS)], [0] * 9])
    def test_missing_unknown_or_too_many_token_ids_are_rejected(self, path, ids):
        assert isinstance(TextTokenizer(path, 8).check_ids(np.array(ids, "<i4").tobytes()), InvalidRequest)

    def test_token_ids_are_unchanged(self, path):
        assert TextTokenizer(path, 8).check_ids(np.array([2, 4, 3], "<i4").tobytes()).ids == [2, 4, 3]


class TestRequests:
    def test_only_the_request_with_a_bad_row_fails(self, path):
        items = [
            EncodeRequest(texts=["a"]),
            EncodeRequest(texts=["b", "a b c d e f"]),
            EncodeRequest(texts=["a b c d e f"], truncate=True),
        ]
        tokenize(items, TextTokenizer(path, 5))
        assert [item.failure is None for item in items] == [True, False, True]
        assert items[1].failure.row == 1
        assert [len(item.tokens) for item in items] == [1, 0, 1]

    def test_a_non_finite_result_fails_the_request_and_names_the_row(self):
        item, fine = EncodeRequest(texts=["a", "b"]), EncodeRequest(texts=["a"])
        item.finish(np.array([[1, 2], [np.nan, 1]], np.float32))
        fine.finish(np.array([[1, 2]], np.float32))
        assert item.failure.row == 1
        assert fine.failure is None

    def test_a_cancelled_request_counts_as_failed(self):
        assert not EncodeRequest().has_failed()
        assert EncodeRequest(is_cancelled=lambda: True).has_failed()


class TestPlan:
    @pytest.mark.parametrize("budget", [64, 512, 4096])
    def test_every_row_is_batched_once_within_the_budget(self, budget):
        lengths = np.random.default_rng(2).integers(1, 700, 300).tolist()
        batches = list(plan(lengths, budget))
        assert sorted(row for batch in batches for row in batch) == list(range(300))
        for batch in batches:
            assert len(batch) == 1 or len(batch) * max(lengths[row] for row in batch) <= budget

    def test_equal_lengths_fill_the_budget(self):
        assert [len(batch) for batch in plan([16] * 64, 512)] == [32, 32]

    def test_padding_is_less_than_5_percent(self):
        lengths = np.random.default_rng(3).integers(8, 512, 200).tolist()
        computed = sum(len(batch) * max(lengths[row] for row in batch) for batch in plan(lengths, 512))
        assert computed < 1.05 * sum(lengths)

    def test_short_rows_are_not_padded_to_the_length_of_a_long_row(self):
        assert list(plan([400, 16, 16, 16], 4096)) == [[0], [1, 2, 3]]

    def test_no_rows_yield_no_batches(self):
        assert list(plan([], 512)) == []


class TestPooling:
    hidden = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    lengths = np.array([3, 2])

    def test_mean_ignores_padding(self):
        expected = [self.hidden[0].mean(axis=0), self.hidden[1, :2].mean(axis=0)]
        np.testing.assert_allclose(POOLINGS["mean"](self.hidden, self.lengths), expected)

    def test_cls_and_last_return_the_first_and_the_last_token(self):
        np.testing.assert_array_equal(POOLINGS["cls"](self.hidden, self.lengths), self.hidden[:, 0])
        expected = [self.hidden[0, 2], self.hidden[1, 1]]
        np.testing.assert_array_equal(POOLINGS["last"](self.hidden, self.lengths), expected)

    def test_normalize_scales_rows_to_length_1_and_turns_zeros_into_nan(self):
        rows = normalize(np.array([[3, 4], [0, 0]], np.float32))
        np.testing.assert_allclose(rows[0], [0.6, 0.8])
        assert np.isnan(rows[1]).all()  # EncodeRequest.finish rejects NaN
