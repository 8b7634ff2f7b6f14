"""What jsonargparse says about a value of the wrong type, in this project's words: what is given, what is allowed."""

import re

_NUMBERS = {
    "PositiveInt": "a whole number of at least 1",
    "NonNegativeInt": "a whole number of at least 0",
    "PositiveFloat": "a number above 0",
    "NonNegativeFloat": "a number of at least 0",
}
_TYPES = {
    "float": "a number",
    "int": "a whole number",
    "bool": "true or false",
    "str": "a string",
    "NoneType": "null",
    "list": "a list",
    "dict": "names with values",
    **{f"jsonargparse.typing.{name}": text for name, text in _NUMBERS.items()},
}
_KEY = r'Parser key "(?P<key>[\w.]+)": '
_EXPECTED = re.compile(_KEY + r"Expected (?:one of|a) (?P<types>.*)\. Got value: (?P<value>.*)")
_RESTRICTED = re.compile(
    _KEY + r"Not of type (?P<name>\w+): "
    r"(?:(?P<value>.*) does not conform to restriction|invalid literal for int\(\) with base 10: '(?P<word>.*)'|"
    r"could not convert string to float: '(?P<digits>.*)').*"
)
_NO_GROUP = re.compile(_KEY + r"Unable to load config '(?P<value>[^']*)' - Parser key \"(?P=key)\": .*")
_IN_FILE = re.compile(_KEY + r"Unable to load config '(?P<file>[^']*)' - (?P<rest>.*)")
_ONE_TYPE = re.compile(r"<class '(?P<class>[\w.]+)'>|typing\.Literal\[(?P<values>[^\]]*)\]")


def plain_words(message: str) -> str:
    """``KEY is VALUE, allowed is ...`` where ``message`` is jsonargparse's about a value's type; else the message.

    Types that have no plain name, such as those of Lightning's own classes, leave the message as it is.
    """
    if found := _RESTRICTED.fullmatch(message):
        value = next(text for text in found.group("value", "word", "digits") if text is not None)
        allowed = _NUMBERS.get(found["name"])
        return f"{found['key']} is {value}, allowed is {allowed}" if allowed else message
    if found := _NO_GROUP.fullmatch(message):
        return f"{found['key']} is {found['value']}, allowed is a group of settings ({found['key']}.NAME)"
    if found := _IN_FILE.fullmatch(message):
        return f"{found['file']}: {plain_words(found['rest'])}"
    found = _EXPECTED.fullmatch(message)
    allowed = found and _allowed(found["types"])
    if not found or not allowed:
        return message
    value = "null" if found["value"] == "None" else found["value"]
    return f"{found['key']} is {value}, allowed is {allowed}"


def _allowed(types: str) -> str | None:
    words: list[str] = []
    for found in _ONE_TYPE.finditer(types):
        if found["values"] is not None:
            words += [value.strip().strip("'") for value in found["values"].split(",")]
        elif found["class"] in _TYPES:
            words.append(_TYPES[found["class"]])
        else:
            return None
    if _ONE_TYPE.sub("", types).strip(" ,") or not words:  # a type of another form
        return None
    words = list(dict.fromkeys(words))
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
