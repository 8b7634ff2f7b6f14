"""The bag-of-words baseline of the text sample: ``python -m domains.text.baseline`` (scikit-learn, a test extra)."""

from collections.abc import Sequence

from domains.text import sample
from suite.console import report
from suite.errors import UsageError

Rows = Sequence[tuple[str, str]]


def accuracy(train: Rows, test: Rows, *, longest: int = 1) -> float:
    """Share of ``test`` that TF-IDF and logistic regression label rightly, from n-grams up to ``longest`` words.

    Raises:
        UsageError: scikit-learn is not installed.
    """
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
    except ImportError:
        raise UsageError("the baseline needs scikit-learn: pip install scikit-learn") from None
    words = TfidfVectorizer(ngram_range=(1, longest), token_pattern=r"\S+")
    model = make_pipeline(words, LogisticRegression(max_iter=1000))
    model.fit([text for text, _ in train], [label for _, label in train])
    return float(model.score([text for text, _ in test], [label for _, label in test]))


def main() -> None:
    """Print the baseline's accuracy on the sample's test split."""
    train, test = sample.generate("train"), sample.generate("test")
    report(f"{len(train):,} reviews in training, {len(test):,} in test")
    for longest, name in ((1, "words"), (2, "words and pairs of words")):
        report(f"TF-IDF of {name}, logistic regression: {accuracy(train, test, longest=longest):.1%}")


if __name__ == "__main__":
    main()
