"""How answers to questions are scored."""

from bench.retrieval import Question, Score, is_as_good, scores, table

QUESTIONS = [Question(word, "en", frozenset({word})) for word in ("a", "b", "c", "d")]


def test_scores_are_shares_by_language() -> None:
    german = Question("e", "de", frozenset({"e"}))
    found = scores([*QUESTIONS, german], [0, 9, None, 1, 0])
    assert found == {"en": Score(4, 0.25, 0.75), "de": Score(1, 1.0, 1.0)}


def test_a_score_may_be_a_little_below_the_reference() -> None:
    assert is_as_good("en", Score(39, 0.7501, 0.93))
    assert not is_as_good("en", Score(39, 0.74, 0.95))
    assert not is_as_good("en", Score(39, 0.77, 0.92))
    assert "| vector | en | 39 | 0.74 |" in table({"vector": {"en": Score(39, 0.74, 0.95)}})
