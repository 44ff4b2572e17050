"""The little world of the demo: ships with facts, told in English and in Chinese.

Everything is drawn from a `random.Random`, so that the same seed gives the same texts on every machine.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One planted fact."""

    ship: str
    attribute: str
    value: str


@dataclass(frozen=True, kw_only=True)
class Language:
    """The words and the sentence patterns of one language."""

    code: str
    ships: tuple[str, ...]
    values: Mapping[str, tuple[str, ...]]  # attribute -> the values it can take; no value has two attributes
    fact: str
    part: str  # how a question names what it asks for
    comma: str
    final: str  # stands before the last part
    question: str
    refusal: str
    idle: tuple[str, ...]  # sentences that name a ship and say nothing of it
    space: str  # between sentences

    def tell(self, fact: Fact) -> str:
        """Return the sentence that states a fact."""
        return self.fact.format(ship=fact.ship, attribute=fact.attribute, value=fact.value)

    def ask(self, facts: Sequence[Fact]) -> str:
        """Return the question for the values of one fact or several."""
        parts = [self.part.format(ship=fact.ship, attribute=fact.attribute) for fact in facts]
        *first, last = parts
        return self.question.format(parts=self.comma.join(first) + self.final + last if first else last)

    def join(self, sentences: Sequence[str]) -> str:
        """Return sentences as one paragraph."""
        return self.space.join(sentences)


ENGLISH = Language(
    code="en",
    ships=tuple(
        (
            "Aurora Boreas Cygnus Delphin Electra Fortuna Galatea Hermes Iris Juno Kestrel Leander Minerva Neptune Orion "
            "Pandora Quest Rigel Sirius Triton Urania Vesta Walrus Xenia Yarrow Zephyr Albatross Calypso Daphne Heron "
            "Osprey Petrel"
        ).split()
    ),
    values={
        "captain": tuple("Adams Baker Carter Dawson Evans Foster Grant Hughes Irving Jensen".split()),
        "owner": tuple("Keller Larsen Morton Norris Olsen Porter Quinn Russell Stone Turner".split()),
        "cargo": tuple("timber coal salt wool rice cotton copper sugar grain tea".split()),
        "harbour": tuple("Lisbon Bergen Genoa Cadiz Dublin Hamburg Malta Naples Oslo Riga".split()),
        "destination": tuple("Havana Boston Lima Manila Sydney Tokyo Mumbai Cairo Durban Quebec".split()),
        "colour": tuple("red blue green white black grey yellow brown orange violet".split()),
        "flag": tuple("Danish Norwegian Greek French German Spanish Dutch Swedish Polish Turkish".split()),
        "hull": tuple("oak steel iron pine teak elm cedar birch maple bronze".split()),
    },
    fact="The {attribute} of {ship} is {value}.",
    part="the {attribute} of {ship}",
    comma=", ",
    final=" and ",
    question="What is {parts}?",
    refusal="I cannot tell.",
    idle=("The crew of {ship} sings.", "Rain falls on {ship}.", "The gulls follow {ship}."),
    space=" ",
)

CHINESE = Language(
    code="zh",
    ships=tuple(
        (
            "曙光号 远望号 东风号 海燕号 飞鱼号 长城号 明珠号 和平号 青山号 白云号 金星号 银河号 希望号 勇士号 彩虹号 晨星号 "
            "北斗号 南风号 春雨号 秋月号 红梅号 翠竹号 大雁号 天鹅号 蓝鲸号 海豚号 雪莲号 松涛号 龙江号 凤凰号 泰山号 黄河号"
        ).split()
    ),
    values={
        "船长": tuple("王明 李强 张伟 刘洋 陈杰 杨帆 赵军 黄磊 周涛 吴刚".split()),
        "船东": tuple("孙立 马超 朱平 胡斌 郭峰 何勇 高亮 林森 罗丹 梁诚".split()),
        "货物": tuple("木材 煤炭 食盐 羊毛 大米 棉花 铜矿 白糖 小麦 茶叶".split()),
        "母港": tuple("大连 天津 青岛 上海 宁波 厦门 广州 海口 烟台 汕头".split()),
        "目的地": tuple("东京 釜山 曼谷 孟买 悉尼 伦敦 汉堡 纽约 开罗 利马".split()),
        "颜色": tuple("红色 蓝色 绿色 白色 黑色 灰色 黄色 棕色 橙色 紫色".split()),
        "国籍": tuple("中国 挪威 丹麦 希腊 法国 德国 日本 巴西 印度 埃及".split()),
        "船体": tuple("橡木 钢板 铁板 松木 柚木 榆木 雪松 桦木 枫木 青铜".split()),
    },
    fact="{ship}的{attribute}是{value}。",
    part="{ship}的{attribute}",
    comma="、",
    final="和",
    question="{parts}分别是什么？",
    refusal="我无法确定。",
    idle=("{ship}的船员在唱歌。", "雨落在{ship}上。", "海鸥跟着{ship}飞。"),
    space="",
)

LANGUAGES = (ENGLISH, CHINESE)


def draw_facts(rng: random.Random, language: Language, count: int, *, attributes: int = 8) -> list[Fact]:
    """Return up to `count` different facts over few ships, so that every fact has distractors.

    Facts that share the ship or the attribute are what a careless reader mixes up; the fewer attributes, the more.
    """
    names = rng.sample(sorted(language.values), attributes)
    ships = rng.sample(language.ships, min(len(language.ships), -(-count // max(1, attributes // 2))))
    places = rng.sample([(ship, name) for ship in ships for name in names], min(count, len(ships) * len(names)))
    return [Fact(ship=ship, attribute=name, value=rng.choice(language.values[name])) for ship, name in places]


def choose_parts(rng: random.Random, facts: Sequence[Fact], parts: int) -> list[Fact]:
    """Return the facts one question asks for."""
    return rng.sample(facts, min(parts, len(facts)))


def mistake(rng: random.Random, language: Language, fact: Fact, facts: Sequence[Fact]) -> Fact:
    """Return the fact with another ship's value: a distractor's, where the document has one."""
    rivals = {other.value for other in facts if other.attribute == fact.attribute} - {fact.value}
    values = sorted(rivals) or [value for value in language.values[fact.attribute] if value != fact.value]
    return Fact(ship=fact.ship, attribute=fact.attribute, value=rng.choice(values))


KINDS = ("right", "partial", "wrong", "refusal")


def answer(
    rng: random.Random, language: Language, asked: Sequence[Fact], facts: Sequence[Fact], kind: str = "right"
) -> str:
    """Return an answer of a kind: right, partial (one part is missing), wrong (one distractor's value), or a refusal."""
    told = list(asked)
    spot = rng.randrange(len(told))
    if kind == "refusal":
        return language.refusal
    if kind == "partial":
        del told[spot]
    if kind == "wrong":
        told[spot] = mistake(rng, language, told[spot], facts)
    return language.join([language.tell(fact) for fact in told])
