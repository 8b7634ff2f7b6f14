"""Where public texts are downloaded from, file by file; docs/data.md has the licences."""

from suite.downloads import Remote, github_url

_SST2 = ("clairett/pytorch-sentiment-classification", "457ffd83de90a9d6d472d8ffc31bbffe40a8b236")
_SENTENCES = ("harvardnlp/sent-conv-torch", "656a7ea29de3409aca87bb17935cf93c537527fa")
_SHAKESPEARE = ("karpathy/char-rnn", "6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e")
_WIKI = ("pytorch/examples", "37ce9402ff0cae48d764d7788810fd2ed8238b25")
REMOTES = {
    "sst2": {
        "train.tsv": Remote(
            github_url(*_SST2, "data/SST2/train.tsv"),
            720259,
            "ec192f833a64da08f475488a77b0d0b47db47acd0f458bd18433fc793b569920",
        ),
        "dev.tsv": Remote(
            github_url(*_SST2, "data/SST2/dev.tsv"),
            92057,
            "eddea6b39e601dd4e7a672b53cc40fdf6019fa80522f351206c24340ca5d9359",
        ),
        "test.tsv": Remote(
            github_url(*_SST2, "data/SST2/test.tsv"),
            188749,
            "831169c7e2e429d6026e1bdbb542f33b636e3e596caad9602ebc953c205928b7",
        ),
    },
    "sentences": {
        "rt-polarity.all.txt.gz": Remote(
            github_url(*_SENTENCES, "data/rt-polarity.all"),
            1259719,
            "b8846c3bbd59241f901efdc58f7c515e4b280ab3561fd1858caa5aa48da95a8a",
            packed=True,
        ),
        "subj.all.txt.gz": Remote(
            github_url(*_SENTENCES, "data/subj.all"),
            1320246,
            "f3ffbe2aa8e4f3ba3e63e46dce51613854edbca122fb3aa758b9bce047ded23c",
            packed=True,
        ),
        "custrev.all.txt.gz": Remote(
            github_url(*_SENTENCES, "data/custrev.all"),
            374094,
            "a3839a79bd3285177a07158c6104b49038a7a06ab2abe897734cde5d22e5e325",
            packed=True,
        ),
    },
    "tinyshakespeare": {
        "input.txt.gz": Remote(
            github_url(*_SHAKESPEARE, "data/tinyshakespeare/input.txt"),
            1115394,
            "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
            packed=True,
        ),
    },
    "wikitext2": {
        "valid.txt.gz": Remote(
            github_url(*_WIKI, "word_language_model/data/wikitext-2/valid.txt"),
            1121681,
            "f0737ed31fc1329026e95cb8b98e19c2a182c39c240ab909dc31abf2f8af58e8",
            packed=True,
        ),
    },
}
"""By set and file."""
