"""Prose for documents of any length: a harbour master's journal in which facts are planted.

Its vocabulary is larger than the small policy's; these documents bring their responses and are only judged.
"""

import random
from collections.abc import Sequence

from harbour import ENGLISH, Fact, Language

LINES = {
    "en": (
        "Wind from the {wind}, {n} knots, and the glass is steady.",
        "{ship} lay at berth {n} until {hour} and then moved to the outer mole.",
        "The tide turned at {hour}, and the pilot boat went out twice.",
        "Two gulls have nested on the roof of the customs shed.",
        "The clerk counted {n} crates on the quay and signed for all of them.",
        "{ship} asked for fresh water, and {n} casks were sent across.",
        "The fog bell rang from {hour} until the light broke through.",
        "I walked along the quay with the mate of {ship} and spoke of the weather.",
        "Repairs to the east crane took {n} hours.",
        "The lamp on the breakwater was trimmed and lit at {hour}.",
        "{ship} saluted {other} as they passed each other at the harbour mouth.",
        "Nobody came ashore from {ship} before {hour}.",
        "The post came late, and {n} letters were waiting for {ship}.",
        "A net was torn near buoy {n} and mended the same evening.",
        "Rain began at {hour}, light at first and then heavy.",
        "The children of the quay school counted {n} sails on the horizon.",
        "A rope parted on {ship} with a sound like a shot, and no one was hurt.",
        "The baker sent {n} loaves on board {ship} against a promise to pay.",
        "At {hour} a stranger asked the way to {ship} and would not give a name.",
        "The dredger worked the northern channel for {n} hours and then broke a chain.",
    ),
    "zh": (
        "今日{wind}风，风力{n}节，气压平稳。",
        "{ship}在{n}号泊位停到{hour}，随后移往外堤。",
        "{hour}转潮，引水船出港两次。",
        "两只海鸥在海关仓库的屋顶上筑了巢。",
        "书记员在码头上清点了{n}只木箱，逐一签收。",
        "{ship}要求补给淡水，已送去{n}桶。",
        "雾钟从{hour}一直响到天色放亮。",
        "我同{ship}的大副沿码头散步，谈了谈天气。",
        "东侧起重机的修理花了{n}个小时。",
        "防波堤上的灯在{hour}修剪灯芯并点亮。",
        "{ship}在港口外与{other}相遇，互相鸣笛致意。",
        "{hour}之前没有人从{ship}上岸。",
        "邮件来得晚，有{n}封信是给{ship}的。",
        "{n}号浮标附近有一张渔网破了，当晚就补好了。",
        "{hour}开始下雨，起初很小，后来很大。",
        "码头小学的孩子们数到天边有{n}片帆。",
        "{ship}上的一根缆绳断了，声音像枪响，无人受伤。",
        "面包铺送了{n}个面包到{ship}上，说好以后付钱。",
        "{hour}有个陌生人打听去{ship}的路，不肯留下姓名。",
        "挖泥船在北航道工作了{n}个小时，后来断了一条链子。",
    ),
}
WINDS = {
    "en": ("north", "south", "east", "west", "north-east", "south-west"),
    "zh": ("北", "南", "东", "西", "东北", "西南"),
}
HOURS = {
    "en": ("dawn", "six", "seven", "half past eight", "nine", "eleven", "noon", "two", "four", "dusk", "midnight"),
    "zh": ("黎明", "清晨六点", "七点", "八点半", "九点", "十一点", "正午", "下午两点", "四点", "黄昏", "午夜"),
}
HEADINGS = {"en": "Day {day}.", "zh": "第{day}天。"}


def line(rng: random.Random, language: Language) -> str:
    """Return one idle sentence of the journal."""
    code = language.code
    ship, other = rng.sample(language.ships, 2)
    pattern = rng.choice(LINES[code])
    return pattern.format(
        ship=ship, other=other, n=rng.randint(2, 40), wind=rng.choice(WINDS[code]), hour=rng.choice(HOURS[code])
    )


def write_journal(rng: random.Random, language: Language, facts: Sequence[Fact], *, characters: int) -> str:
    """Return a journal of about that many characters; the facts stand in it in their order, evenly spread."""
    lines: list[str] = []
    while sum(map(len, lines)) < characters:
        lines += [line(rng, language) for _ in range(20 if characters < 10_000 else 200)]
    average = sum(map(len, lines)) / len(lines)
    lines = lines[: max(len(facts), round(characters / average) - len(facts))]
    for number, fact in enumerate(facts):
        lines.insert(round((number + 0.5) * len(lines) / len(facts)), language.tell(fact))
    return paragraphs(rng, language, lines)


def paragraphs(rng: random.Random, language: Language, lines: Sequence[str]) -> str:
    """Return the lines as days of four to nine sentences."""
    days: list[str] = []
    start = 0
    while start < len(lines):
        size = rng.randint(4, 9)
        heading = HEADINGS[language.code].format(day=len(days) + 1)
        days.append(language.join([heading, *lines[start : start + size]]))
        start += size
    return "\n\n".join(days)


def rambling(rng: random.Random, language: Language, told: str) -> str:
    """Return an answer that wanders off before and after it says what it has to say."""
    opening = "Harbours are busy places. " if language is ENGLISH else "港口总是很忙。"
    return language.join([opening.strip(), line(rng, language), told, line(rng, language)])
