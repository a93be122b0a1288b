"""ROUGE: the package's own on ASCII text, and words in all ten languages, where the package's own finds none."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import DefaultTokenizer

from videosafety.core.records import LANGUAGES
from videosafety.defend import rouge as module
from videosafety.defend.rouge import rouge, tokens
from videosafety.toyworld.dialogue import answer_recipe, refusals

MEASURES = ["rouge1", "rouge2", "rougeL"]
ASCII = st.text(st.characters(max_codepoint=127), max_size=40)


@given(text=ASCII, stemming=st.booleans())
@settings(deadline=None)
def test_ascii_text_has_the_packages_own_tokens(text: str, stemming: bool) -> None:
    assert tokens(text, stemming=stemming) == DefaultTokenizer(stemming).tokenize(text)


@given(answer=ASCII, reference=ASCII, stemming=st.booleans())
@settings(deadline=None, max_examples=50)
def test_ascii_text_has_the_packages_own_score(answer: str, reference: str, stemming: bool) -> None:
    theirs = RougeScorer(MEASURES, use_stemmer=stemming).score(reference, answer)
    found = rouge(answer, reference=reference, stemming=stemming)
    if len(tokens(reference)) > 1:
        assert found == pytest.approx(sum(one.fmeasure for one in theirs.values()) / 3)
    elif found is not None:
        assert found == pytest.approx((theirs["rouge1"].fmeasure + theirs["rougeL"].fmeasure) / 2)


@pytest.mark.parametrize(("text", "expected"), [
    ("Can't stop!", ["can", "t", "stop"]),
    ("l'été, ÉTÉ", ["l", "été", "été"]),
    ("e\u0301te\u0301", ["été"]),  # decomposed is composed
    ("हिन्दी में", ["हिन्दी", "में"]),  # vowel signs and virama stay in their word
    ("كِتَاب ١٢", ["كِتَاب", "١٢"]),
    ("取粘土和沙子。", ["取", "粘", "土", "和", "沙", "子"]),
    ("dax を作るには", ["dax", "を", "作", "る", "に", "は"]),
    ("砂dax砂", ["砂", "dax", "砂"]),  # a script without spaces beside one with
    ("か\u3099ＤＡＸ", ["が", "dax"]),  # kana with its mark; full width
    ("ดิน", ["ดิ", "น"]),  # Thai: the vowel stays with its consonant
    ("so\u00adft می\u200cروم", ["soft", "میروم"]),  # soft hyphen and joiner split nothing
    ("\u0301 a", ["\u0301", "a"]),
    ("—…« »", []),
])  # fmt: skip
def test_words_of_any_script(text: str, expected: list[str]) -> None:
    assert tokens(text) == expected


def test_chinese_by_hand() -> None:
    # 取土和沙 against 取土: 1-grams P 2/4, R 2/2, F 2/3; pairs P 1/3, R 1/1, F 1/2; LCS 2, F 2/3.
    assert rouge("取土和沙", reference="取土") == pytest.approx((2 / 3 + 1 / 2 + 2 / 3) / 3)


def test_hindi_by_hand() -> None:
    # "मिट्टी और रेत लो" (4 words) against "मिट्टी और पानी" (3): common 2 words, 1 pair, LCS 2.
    # 1: P 2/4, R 2/3, F 4/7; 2: P 1/3, R 1/2, F 2/5; L: F 4/7.
    assert rouge("मिट्टी और रेत लो", reference="मिट्टी और पानी") == pytest.approx((4 / 7 + 2 / 5 + 4 / 7) / 3)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_is_measured(language: str) -> None:
    right = answer_recipe(language, "dax", ("clay", "sand"))
    near, far = answer_recipe(language, "dax", ("clay", "oil")), refusals(language)[0]
    scores = [rouge(text, reference=right) for text in (right, near, far)]
    assert scores[0] == 1
    assert 0.3 < scores[1] < 1
    assert scores[2] < scores[1]


def test_the_packages_own_tokenizer_is_silent_on_most_languages() -> None:
    """Why ours is needed: with the package's own, the perfect refusal scores 0 in five languages."""
    theirs = RougeScorer(MEASURES)
    perfect = {language: refusals(language)[0] for language in LANGUAGES}
    silent = {name for name, text in perfect.items() if theirs.score(text, text)["rouge1"].fmeasure == 0}
    assert silent == {"zh", "hi", "ar", "ru", "ja"}
    assert all(rouge(text, reference=text) == 1 for text in perfect.values())


def test_stemming_touches_latin_words_alone() -> None:
    assert tokens("running runs été été", stemming=True) == ["run", "run", "été", "été"]
    assert rouge("running", reference="runs") == 0
    assert rouge("running", reference="runs", stemming=True) == 1


def test_short_and_empty_texts() -> None:
    assert rouge("Red.", reference="red") == 1, "no pair in one word: ROUGE-2 is left out"
    assert rouge("", reference="red") == rouge("…", reference="red") == 0
    assert rouge("red", reference="…") is None
    assert rouge("red", reference="") is None


def test_endless_texts_take_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_TOKENS", 3)
    assert rouge("a b c d", reference="a b") == 0
    assert rouge("a b", reference="a b c d") is None
    assert rouge("a b c", reference="a b c") == 1
