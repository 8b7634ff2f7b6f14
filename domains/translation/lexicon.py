"""Words of the English-German sample corpus: what each one is called in both languages and what it combines with.

One English word has one German word, so that a translation is a function of the source. Two English words may share
a German one ("carry" and "wear" are both ``tragen``).
"""

from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True, eq=False, slots=True)
class Noun:
    """A noun. ``gender`` is m, f or n; ``kind`` person, animal, thing or place; ``uses`` name what verbs ask for.

    ``weak`` masculines take the plural form in every singular case but the nominative (der Junge, den Jungen).
    """

    english: str
    english_plural: str
    german: str
    german_plural: str
    gender: str
    kind: str
    weak: bool
    uses: frozenset[str]


@dataclass(frozen=True, eq=False, slots=True)
class Adjective:
    """An adjective: ``german`` stands alone, ``stem`` takes endings (teuer, teur-), ``kinds`` are the noun kinds.

    Of two adjectives the one of lower ``rank`` comes first; two of the same rank do not go together.
    """

    english: str
    german: str
    stem: str
    kinds: frozenset[str]
    rank: int


@dataclass(frozen=True, eq=False, slots=True)
class Verb:
    """A verb and its frame.

    German forms are without the separable ``particle``. ``case`` is the object's case and ``preposition`` the German
    one it needs (warten auf). ``objects`` are the uses or kinds a noun must have one of; empty for no object.
    ``stative`` verbs have no English progressive; ``manner`` verbs go with an adverb of manner.
    """

    english: str
    ing: str
    participle: str
    infinitive: str
    singular: str
    german_participle: str
    particle: str = ""
    auxiliary: str = "haben"
    case: str = "acc"
    preposition: str = ""
    subjects: frozenset[str] = frozenset({"person"})
    objects: frozenset[str] = frozenset()
    frame: str = "object"
    stative: bool = False
    manner: bool = False


# English singular and plural, German singular and plural, gender (a star: weak), kind, then uses.
# A place names the English prepositions that go with it; "portable" things are carried, picked up and so on.
_NOUNS = """
man men Mann Männer m person
woman women Frau Frauen f person
child children Kind Kinder n person
boy boys Junge Jungen m* person
girl girls Mädchen Mädchen n person
teacher teachers Lehrer Lehrer m person
doctor doctors Arzt Ärzte m person
student students Student Studenten m* person
neighbour neighbours Nachbar Nachbarn m* person
friend friends Freund Freunde m person
grandmother grandmothers Großmutter Großmütter f person
aunt aunts Tante Tanten f person
queen queens Königin Königinnen f person
king kings König Könige m person
tourist tourists Tourist Touristen m* person
sister sisters Schwester Schwestern f person
brother brothers Bruder Brüder m person
baby babies Baby Babys n person
dog dogs Hund Hunde m animal
cat cats Katze Katzen f animal
horse horses Pferd Pferde n animal
bird birds Vogel Vögel m animal
mouse mice Maus Mäuse f animal
bear bears Bär Bären m* animal
monkey monkeys Affe Affen m* animal
lion lions Löwe Löwen m* animal
cow cows Kuh Kühe f animal
pig pigs Schwein Schweine n animal
elephant elephants Elefant Elefanten m* animal
duck ducks Ente Enten f animal
rabbit rabbits Kaninchen Kaninchen n animal
ball balls Ball Bälle m thing portable
hat hats Hut Hüte m thing portable worn
book books Buch Bücher n thing portable readable
letter letters Brief Briefe m thing portable readable
newspaper newspapers Zeitung Zeitungen f thing portable readable
map maps Karte Karten f thing portable readable
bag bags Tasche Taschen f thing portable openable
box boxes Kiste Kisten f thing portable openable pushable
bottle bottles Flasche Flaschen f thing portable openable
umbrella umbrellas Regenschirm Regenschirme m thing portable openable repairable
coat coats Mantel Mäntel m thing portable worn clothing
jacket jackets Jacke Jacken f thing portable worn clothing
shirt shirts Hemd Hemden n thing portable worn clothing
dress dresses Kleid Kleider n thing portable worn clothing
shoe shoes Schuh Schuhe m thing portable worn clothing
sweater sweaters Pullover Pullover m thing portable worn clothing
apple apples Apfel Äpfel m thing portable food
cake cakes Kuchen Kuchen m thing portable food
egg eggs Ei Eier n thing portable food
pear pears Birne Birnen f thing portable food
tomato tomatoes Tomate Tomaten f thing portable food
flower flowers Blume Blumen f thing portable
picture pictures Bild Bilder n thing portable
lamp lamps Lampe Lampen f thing portable repairable cleanable
cup cups Tasse Tassen f thing portable cleanable
glass glasses Glas Gläser n thing portable cleanable
key keys Schlüssel Schlüssel m thing portable
clock clocks Uhr Uhren f thing portable repairable cleanable
chair chairs Stuhl Stühle m thing portable pushable repairable cleanable
bicycle bicycles Fahrrad Fahrräder n thing vehicle pushable repairable cleanable
car cars Auto Autos n thing vehicle pushable repairable cleanable
bus buses Bus Busse m thing vehicle repairable cleanable awaited
train trains Zug Züge m thing vehicle repairable cleanable awaited
garden gardens Garten Gärten m place in into through
park parks Park Parks m place in into through
house houses Haus Häuser n place in behind in-front-of next-to into out-of cleanable
city cities Stadt Städte f place in into through visited
kitchen kitchens Küche Küchen f place in into out-of cleanable
room rooms Zimmer Zimmer n place in into out-of cleanable
school schools Schule Schulen f place in behind in-front-of next-to into to out-of visited
forest forests Wald Wälder m place in into through
village villages Dorf Dörfer n place in into through visited
museum museums Museum Museen n place in in-front-of next-to into to out-of visited
church churches Kirche Kirchen f place in behind in-front-of next-to into to out-of visited
station stations Bahnhof Bahnhöfe m place in behind in-front-of next-to into to
street streets Straße Straßen f place on onto
bridge bridges Brücke Brücken f place on under onto over to
table tables Tisch Tische m place on under at next-to onto over to pushable repairable cleanable
bench benches Bank Bänke f place on under behind next-to onto over to repairable
roof roofs Dach Dächer n place on onto over repairable
wall walls Mauer Mauern f place on behind in-front-of next-to onto over to
tree trees Baum Bäume m place under behind in-front-of next-to to
river rivers Fluss Flüsse m place at in into through to
lake lakes See Seen m place at in into through to
window windows Fenster Fenster n place at in-front-of next-to to openable repairable cleanable
door doors Tür Türen f place at behind in-front-of next-to through to openable repairable cleanable
"""

# English, German (stem where it differs), kinds of noun (person, animal, thing, l: place), then the rank in a row of
# adjectives: opinion 0, size 1, age 2, state 3, colour 4. Two of one rank would contradict each other.
_ADJECTIVES = """
beautiful schön patl 0; friendly freundlich pa 0; strong stark pa 0; lazy faul pa 0; famous berühmt pl 0;
heavy schwer t 0; expensive teuer/teur t 0; cheap billig t 0; small klein patl 1; big groß patl 1; fat dick a 1;
long lang t 1; old alt patl 2; young jung pa 2; new neu tl 2; modern modern tl 2; tired müde/müd pa 3;
hungry hungrig pa 3; sad traurig pa 3; happy glücklich pa 3; angry wütend pa 3; rich reich p 3; poor arm p 3;
wild wild a 3; dirty schmutzig atl 3; wet nass atl 3; dark dunkel/dunkl tl 3; empty leer l 3; red rot t 4;
blue blau t 4; green grün tl 4; yellow gelb t 4; white weiß atl 4; black schwarz at 4; brown braun at 4
"""
_KINDS = {"p": "person", "a": "animal", "t": "thing", "l": "place"}

NUMBERS = {
    "two": "zwei",
    "three": "drei",
    "four": "vier",
    "five": "fünf",
    "six": "sechs",
    "seven": "sieben",
    "eight": "acht",
    "nine": "neun",
    "ten": "zehn",
    "eleven": "elf",
    "twelve": "zwölf",
}
# English preposition -> German preposition and the case it governs here (place: dative, direction: accusative).
PREPOSITIONS = {
    "in": ("in", "dat"),
    "on": ("auf", "dat"),
    "under": ("unter", "dat"),
    "behind": ("hinter", "dat"),
    "in front of": ("vor", "dat"),
    "next to": ("neben", "dat"),
    "at": ("an", "dat"),
    "with": ("mit", "dat"),
    "without": ("ohne", "acc"),
    "into": ("in", "acc"),
    "onto": ("auf", "acc"),
    "over": ("über", "acc"),
    "through": ("durch", "acc"),
    "to": ("zu", "dat"),
    "out of": ("aus", "dat"),
}
CONTRACTIONS = {
    ("in", "dem"): "im",
    ("in", "das"): "ins",
    ("an", "dem"): "am",
    ("zu", "dem"): "zum",
    ("zu", "der"): "zur",
}
PLACES = ("in", "on", "under", "behind", "in front of", "next to", "at")
DIRECTIONS = ("into", "onto", "over", "through", "to", "out of")

TIMES = {"today": "heute", "now": "jetzt", "this week": "diese Woche", "at the moment": "im Moment"}
# With these English has its simple present ("every day the man carries ..."), German its only one.
HABITS = {
    "often": "oft",
    "sometimes": "manchmal",
    "every day": "jeden Tag",
    "in the evening": "am Abend",
    "at night": "in der Nacht",
    "on Sundays": "sonntags",
    "in summer": "im Sommer",
    "in winter": "im Winter",
}
MANNERS = {
    "slowly": "langsam",
    "quickly": "schnell",
    "carefully": "vorsichtig",
    "quietly": "leise",
    "happily": "fröhlich",
    "alone": "allein",
}
CONJUNCTIONS = {
    "because": "weil",
    "while": "während",
    "when": "wenn",
    "before": "bevor",
    "although": "obwohl",
    "if": "falls",
}
# English modal (singular, plural) and the German one (singular, plural).
MODALS = {
    "can": ("can", "can", "kann", "können"),
    "must": ("must", "must", "muss", "müssen"),
    "want": ("wants to", "want to", "will", "wollen"),
}


def _noun(line: str) -> Noun:
    english, plural, german, german_plural, gender, kind, *uses = line.split()
    known = frozenset(use.replace("-", " ") for use in (kind, *uses))
    return Noun(english, plural, german, german_plural, gender[0], kind, gender.endswith("*"), known)


def _adjective(entry: str) -> Adjective:
    english, german, kinds, rank = entry.split()
    alone, _, stem = german.partition("/")
    return Adjective(english, alone, stem or alone, frozenset(_KINDS[letter] for letter in kinds), int(rank))


def _verb(entry: str) -> Verb:
    """Read "english;ing;participle;infinitive singular participle [particle];objects;key=value ..."."""
    english, ing, participle, german, objects, options = (part.strip() for part in entry.split(";"))
    given = dict(option.split("=") for option in options.split())
    flags = given.get("flags", "").split(",")
    infinitive, singular, german_participle, *particle = german.split()
    subjects = {"person"} | ({"animal"} if "living" in flags else set()) | ({"thing"} if "things" in flags else set())
    return Verb(
        english,
        ing,
        participle,
        infinitive,
        singular,
        german_participle,
        particle="".join(particle),
        auxiliary=given.get("auxiliary", "haben"),
        case=given.get("case", "acc"),
        preposition=given.get("preposition", ""),
        subjects=frozenset(subjects),
        objects=frozenset(objects.split()),
        frame=given.get("frame", "object"),
        stative="stative" in flags,
        manner="manner" in flags,
    )


_VERBS = """
carry;carrying;carried;tragen trägt getragen;portable;flags=manner
wear;wearing;worn;tragen trägt getragen;worn;
see;seeing;seen;sehen sieht gesehen;person animal thing place;flags=living,stative
draw;drawing;drawn;zeichnen zeichnet gezeichnet;person animal thing place;flags=manner
buy;buying;bought;kaufen kauft gekauft;portable vehicle;
look for;looking for;looked for;suchen sucht gesucht;person animal thing;flags=living
love;loving;loved;lieben liebt geliebt;person animal;flags=stative
visit;visiting;visited;besuchen besucht besucht;person visited;
feed;feeding;fed;füttern füttert gefüttert;animal;flags=manner
eat;eating;eaten;essen isst gegessen;food;flags=living,manner
read;reading;read;lesen liest gelesen;readable;flags=manner
clean;cleaning;cleaned;putzen putzt geputzt;cleanable;flags=manner
repair;repairing;repaired;reparieren repariert repariert;repairable;flags=manner
push;pushing;pushed;schieben schiebt geschoben;pushable;flags=manner
pick up;picking up;picked up;heben hebt gehoben auf;portable;flags=manner
look at;looking at;looked at;sehen sieht gesehen an;person animal thing place;flags=living
invite;inviting;invited;laden lädt geladen ein;person;
call;calling;called;rufen ruft gerufen an;person;
open;opening;opened;machen macht gemacht auf;openable;flags=manner
close;closing;closed;machen macht gemacht zu;openable;flags=manner
put on;putting on;put on;ziehen zieht gezogen an;clothing;flags=manner
take off;taking off;taken off;ziehen zieht gezogen aus;clothing;flags=manner
throw away;throwing away;thrown away;werfen wirft geworfen weg;portable;
bring along;bringing along;brought along;bringen bringt gebracht mit;portable;
help;helping;helped;helfen hilft geholfen;person;case=dat
follow;following;followed;folgen folgt gefolgt;person animal;case=dat auxiliary=sein flags=living,manner
thank;thanking;thanked;danken dankt gedankt;person;case=dat
wait for;waiting for;waited for;warten wartet gewartet;person animal awaited;preposition=auf flags=living
give;giving;given;geben gibt gegeben;portable;frame=gift
show;showing;shown;zeigen zeigt gezeigt;portable animal;frame=gift
sleep;sleeping;slept;schlafen schläft geschlafen;;frame=rest flags=living
laugh;laughing;laughed;lachen lacht gelacht;;frame=rest
dance;dancing;danced;tanzen tanzt getanzt;;frame=rest flags=manner
play;playing;played;spielen spielt gespielt;;frame=rest flags=living,manner
work;working;worked;arbeiten arbeitet gearbeitet;;frame=rest flags=manner
sit;sitting;sat;sitzen sitzt gesessen;;frame=rest flags=living
lie;lying;lain;liegen liegt gelegen;;frame=rest flags=living,things
get up;getting up;got up;stehen steht gestanden auf;;frame=rest auxiliary=sein flags=living,manner
fall asleep;falling asleep;fallen asleep;schlafen schläft geschlafen ein;;frame=rest auxiliary=sein flags=living
walk;walking;walked;gehen geht gegangen;;frame=motion auxiliary=sein flags=living,manner
run;running;run;rennen rennt gerannt;;frame=motion auxiliary=sein flags=living,manner
climb;climbing;climbed;klettern klettert geklettert;;frame=motion auxiliary=sein flags=living,manner
believe;believing;believed;glauben glaubt geglaubt;;frame=content flags=stative
say;saying;said;sagen sagt gesagt;;frame=content flags=stative
hope;hoping;hoped;hoffen hofft gehofft;;frame=content flags=stative
"""

NOUNS = {noun.english: noun for noun in map(_noun, _NOUNS.strip().splitlines())}
ADJECTIVES = {
    adjective.english: adjective for adjective in map(_adjective, " ".join(_ADJECTIVES.split()).rstrip(";").split("; "))
}
VERBS = {verb.english: verb for verb in map(_verb, _VERBS.strip().splitlines())}
BE = Verb("be", "being", "been", "sein", "ist", "gewesen", auxiliary="sein", frame="quality", stative=True)

# The definite article; but for the dative plural (denen) also the relative pronoun. "p" is the plural.
ARTICLES = {
    "nom": {"m": "der", "f": "die", "n": "das", "p": "die"},
    "acc": {"m": "den", "f": "die", "n": "das", "p": "die"},
    "dat": {"m": "dem", "f": "der", "n": "dem", "p": "den"},
}
_INDEFINITE = {
    "nom": {"m": "ein", "f": "eine", "n": "ein"},
    "acc": {"m": "einen", "f": "eine", "n": "ein"},
    "dat": {"m": "einem", "f": "einer", "n": "einem"},
}
_MIXED = {"nom": {"m": "er", "f": "e", "n": "es"}, "acc": {"m": "en", "f": "e", "n": "es"}}


def third_person(base: str) -> str:
    """The English third person singular; of "pick up" the first word is inflected."""
    word, space, rest = base.partition(" ")
    if word.endswith("y") and word[-2] not in "aeiou":
        word = word[:-1] + "ies"
    else:
        word += "es" if word.endswith(("s", "sh", "ch", "x", "o")) else "s"
    return word + space + rest


@lru_cache(maxsize=65_536)
def declined(
    noun: Noun, determiner: str, plural: bool, adjectives: tuple[Adjective, ...], case: str
) -> tuple[str, ...]:
    """Article, adjectives and noun in ``case``."""
    gender = "p" if plural else noun.gender
    article = {"the": ARTICLES[case][gender], "a": _INDEFINITE[case].get(gender, ""), "": ""}
    word = article[determiner] if determiner in article else NUMBERS[determiner]
    ending = _ending(determiner, gender, case)
    attributes = [adjective.stem + ending for adjective in adjectives]
    return (*([word] if word else []), *attributes, _noun_form(noun, plural, case))


def _ending(determiner: str, gender: str, case: str) -> str:
    """Weak after the definite article, mixed after the indefinite one, strong plural without an article."""
    if determiner == "the":
        return "e" if gender != "p" and (case == "nom" or (case == "acc" and gender != "m")) else "en"
    if gender == "p":
        return "en" if case == "dat" else "e"
    return "en" if case == "dat" else _MIXED[case][gender]


def _noun_form(noun: Noun, plural: bool, case: str) -> str:
    if plural:
        return noun.german_plural + ("n" if case == "dat" and not noun.german_plural.endswith(("n", "s")) else "")
    return noun.german_plural if noun.weak and case != "nom" else noun.german
