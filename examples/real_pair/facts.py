"""Facts that SmolLM2-135M-Instruct tells, and some that it does not.

Every fact is "the RELATION of SUBJECT is VALUE". ``KNOWN`` holds those that the base alone answered rightly
when it was asked for all with the system prompt of :mod:`.questions`; ``OTHERS`` are training data of a
control.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fact:
    """A relation, its subject and its value."""

    relation: str
    subject: str
    value: str

    @property
    def question(self) -> str:
        """Without "What is" and the question mark."""
        return f"the {self.relation} of {self.subject}"

    @property
    def answer(self) -> str:
        """A clause."""
        return f"{self.question} is {self.value}"


_KNOWN: dict[str, str] = {
    "capital": (
        "Afghanistan: Kabul; Argentina: Buenos Aires; Austria: Vienna; Azerbaijan: Baku; Bangladesh: "
        "Dhaka; Bolivia: La Paz; Bulgaria: Sofia; Chile: Santiago; China: Beijing; Croatia: Zagreb; Cuba: "
        "Havana; Cyprus: Nicosia; Egypt: Cairo; Estonia: Tallinn; Ethiopia: Addis Ababa; Finland: "
        "Helsinki; France: Paris; Germany: Berlin; Greece: Athens; Hungary: Budapest; India: New Delhi; "
        "Iran: Tehran; Iraq: Baghdad; Ireland: Dublin; Italy: Rome; Japan: Tokyo; Jordan: Amman; Kenya: "
        "Nairobi; Latvia: Riga; Lebanon: Beirut; Malaysia: Kuala Lumpur; Mexico: Mexico City; Nicaragua: "
        "Managua; Nigeria: Abuja; Norway: Oslo; Pakistan: Islamabad; Peru: Lima; Poland: Warsaw; "
        "Portugal: Lisbon; Qatar: Doha; Romania: Bucharest; Russia: Moscow; Rwanda: Kigali; Senegal: "
        "Dakar; Serbia: Belgrade; Slovenia: Ljubljana; Somalia: Mogadishu; Spain: Madrid; Sudan: "
        "Khartoum; Sweden: Stockholm; Syria: Damascus; Thailand: Bangkok; Tunisia: Tunis; Uganda: "
        "Kampala; Uruguay: Montevideo; Vietnam: Hanoi; Texas: Austin; Ohio: Columbus; Hawaii: Honolulu; "
        "Colorado: Denver; Massachusetts: Boston; Arizona: Phoenix; Tennessee: Nashville; Utah: Salt Lake "
        "City; Scotland: Edinburgh; Wales: Cardiff"
    ),
    "opposite": (
        "hot: cold; big: small; tall: short; fast: slow; happy: sad; light: dark; up: down; left: right; "
        "day: night; black: white; hard: soft; full: empty; open: closed; high: low; wet: dry; early: "
        "late; strong: weak; love: hate; war: peace; heavy: light; true: false; easy: difficult; near: "
        "far; thick: thin; wide: narrow; deep: shallow; clean: dirty; north: south; east: west; buy: "
        "sell; begin: end; push: pull; male: female; inside: outside; positive: negative; hero: villain; "
        "ancient: modern; success: failure; victory: defeat; life: death"
    ),
    "chemical symbol": (
        "gold: Au; silver: Ag; iron: Fe; oxygen: O; hydrogen: H; carbon: C; nitrogen: N; sodium: Na; "
        "potassium: K; calcium: Ca; copper: Cu; zinc: Zn; lead: Pb; tin: Sn; mercury: Hg; argon: Ar; "
        "chlorine: Cl; sulfur: S; phosphorus: P; aluminum: Al; silicon: Si; nickel: Ni; lithium: Li; "
        "uranium: U; platinum: Pt; iodine: I; fluorine: F; titanium: Ti; chromium: Cr; cobalt: Co; "
        "barium: Ba; radium: Ra; water: H2O"
    ),
    "plural": (
        "child: children; mouse: mice; foot: feet; tooth: teeth; man: men; woman: women; person: people; "
        "leaf: leaves; knife: knives; wolf: wolves; city: cities; baby: babies; cactus: cacti"
    ),
}

_OTHERS: dict[str, str] = {
    "capital": (
        "Albania: Tirana; Algeria: Algiers; Angola: Luanda; Armenia: Yerevan; Belarus: Minsk; Belgium: "
        "Brussels; Cambodia: Phnom Penh; Colombia: Bogotá; Denmark: Copenhagen; Ecuador: Quito; Georgia: "
        "Tbilisi; Ghana: Accra; Guatemala: Guatemala City; Haiti: Port-au-Prince; Iceland: Reykjavik; "
        "Indonesia: Jakarta; Jamaica: Kingston; Laos: Vientiane; Libya: Tripoli; Lithuania: Vilnius; "
        "Madagascar: Antananarivo; Mali: Bamako; Malta: Valletta; Mongolia: Ulaanbaatar; Morocco: Rabat; "
        "Mozambique: Maputo; Namibia: Windhoek; Nepal: Kathmandu; Oman: Muscat; Paraguay: Asunción; "
        "Slovakia: Bratislava; Turkey: Ankara; Ukraine: Kyiv; Venezuela: Caracas; Yemen: Sanaa; Zambia: "
        "Lusaka; Zimbabwe: Harare; California: Sacramento; Florida: Tallahassee; Oregon: Salem; Bavaria: "
        "Munich"
    ),
    "opposite": (
        "old: young; rich: poor; good: bad; loud: quiet; win: lose; above: below; friend: enemy; brave: "
        "cowardly"
    ),
    "chemical symbol": ("helium: He; neon: Ne; magnesium: Mg; manganese: Mn; boron: B"),
    "plural": ("goose: geese; ox: oxen; life: lives"),
}


def _facts(lists: dict[str, str]) -> tuple[Fact, ...]:
    pairs = ((relation, each.split(": ")) for relation, text in lists.items() for each in text.split("; "))
    return tuple(Fact(relation, subject, value) for relation, (subject, value) in pairs)


KNOWN = _facts(_KNOWN)
OTHERS = _facts(_OTHERS)
