"""What the demo's newspaper has to print. The town, its people and its news are invented."""

from __future__ import annotations

import enum

import msgspec


class Topic(enum.StrEnum):
    """What a story is about."""

    SCIENCE = "science"
    SPORT = "sport"
    FOOD = "food"
    CULTURE = "culture"
    MONEY = "money"
    OUTDOORS = "outdoors"


class Story(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """An article."""

    id: str
    topic: Topic
    title: str
    teaser: str
    text: tuple[str, ...]  # paragraphs
    picture: str  # what is to be seen on it
    minutes: int  # to read it


STORIES: tuple[Story, ...] = (
    Story(
        id="moon-clock",
        topic=Topic.SCIENCE,
        title="The moon gets a clock of its own, and it runs fast",
        teaser="Up there a day is over 57 millionths of a second sooner. Somebody has to keep count.",
        text=(
            "The clock is no bigger than a loaf of bread. It hangs in the cellar of Saltmere observatory, and shows "
            "what the time is on the moon, where weight is less and time therefore in a hurry.",
            "“It is not much,” says Ada Quill, who winds it. “In fifty years it comes to one second. But if you "
            "want to land on a plate in the dark, you ask for the local time.”",
        ),
        picture="A large moon over a dark hill, with the hands of a clock on it",
        minutes=3,
    ),
    Story(
        id="whale-accent",
        topic=Topic.SCIENCE,
        title="The whales off the cape have an accent, and it is catching",
        teaser="A song from the far side of the ocean is heard in the bay for the first time.",
        text=(
            "For eleven summers the microphones under Cape Sorrow have heard the same four phrases. This year there "
            "is a fifth, and it comes from whales that have never been seen here.",
            "The young ones sing it first. By August even the old cow with the notched fin had given in.",
        ),
        picture="A whale under the waves, sending out rings of sound",
        minutes=4,
    ),
    Story(
        id="old-keeper",
        topic=Topic.SPORT,
        title="Twice retired, the keeper saves four in a row",
        teaser="Harbour United needed someone for one evening. Bruno Talle, 44, had his gloves in the car.",
        text=(
            "He had come to watch. Then the first keeper slipped on the stairs, the second was at a wedding, and "
            "somebody in row nine shouted his name.",
            "Four penalties later he sat in the grass and asked whether the bakery was still open.",
        ),
        picture="A ball on its way into the corner of a goal, and a glove in front of it",
        minutes=2,
    ),
    Story(
        id="fog-rowers",
        topic=Topic.SPORT,
        title="Eight rowers cross the bay in fog, by ear",
        teaser="They could not see their own oars. Their coach stood on the other shore and sang.",
        text=(
            "The race should have been called off. Nobody had told the boat from the cannery, which was already out "
            "where it was all white.",
            "So Mrs. Okoro climbed onto the pier with a megaphone and sang the rounds she sings at practice. They "
            "came in straight as a ruler, two minutes under the record that does not count.",
        ),
        picture="A rowing boat, half gone in layers of fog",
        minutes=3,
    ),
    Story(
        id="dumpling-truce",
        topic=Topic.FOOD,
        title="One street, nine dumpling houses, and a truce",
        teaser="For thirty years they did not greet each other. Now they share a steamer.",
        text=(
            "It began with the pipe that burst under Lantern Street and left eight kitchens without water. The ninth "
            "put a table outside and said: bring what you have folded.",
            "They still disagree about vinegar. But on Mondays there is one pot, and whoever is hungry gets all nine.",
        ),
        picture="A bamboo steamer with three dumplings under curls of steam",
        minutes=3,
    ),
    Story(
        id="four-day-bread",
        topic=Topic.FOOD,
        title="The loaf that takes four days, and why there is a queue",
        teaser="Flour, water, salt, and nothing that could hurry it up. We waited along.",
        text=(
            "On the first day nothing happens, which is the point. On the second it smells of apples. On the third "
            "the baker leaves the radio on for it, and will not say why.",
            "On the fourth it is gone by half past seven.",
        ),
        picture="A round loaf with a cut crust, and ears of wheat",
        minutes=2,
    ),
    Story(
        id="organ-cinema",
        topic=Topic.CULTURE,
        title="The Orpheum opens again, with its organ in tune",
        teaser="It took 612 pipes, four winters and a borrowed ear to make the old picture house sing.",
        text=(
            "When the lights go down the floor opens, and the organ comes up with a sound like weather. Half of the "
            "house has not been born when it last did so. All of it stands up.",
            "The first film is silent. Nobody else is.",
        ),
        picture="A red curtain, a beam of light and the pipes of an organ",
        minutes=4,
    ),
    Story(
        id="lighthouse-painter",
        topic=Topic.CULTURE,
        title="Somebody paints the lighthouse at night",
        teaser="Every new moon it has another coat. The town has agreed not to find out who it is.",
        text=(
            "In March it had stripes. In May there were swallows up to the gallery. Since Sunday the whole tower "
            "is a heron on one leg.",
            "There is a camera. The harbour master has hung his hat on it.",
        ),
        picture="A painted lighthouse under stars, its beam across the sea",
        minutes=3,
    ),
    Story(
        id="ferry-coin",
        topic=Topic.MONEY,
        title="Why the ferry takes coins again",
        teaser="Cards were quicker, until the signal went. Small change has never been late.",
        text=(
            "Twice this winter the crossing stood still for an hour because nobody could pay for it. Now there is a "
            "bowl at the gangway, as there was in 1931.",
            "Takings are up by a tenth. The purser has a theory: people who throw a coin look pleased.",
        ),
        picture="A ferry on the water, and a large coin rising like a sun",
        minutes=2,
    ),
    Story(
        id="savings-club",
        topic=Topic.MONEY,
        title="A savings club of 1911 pays out, to the penny",
        teaser="Forty dock hands put a shilling a week into a tin. Their great-grandchildren have just opened it.",
        text=(
            "The rules fit on a card: nobody asks, nobody borrows, and it is opened when the last of the cranes is "
            "taken down. That was on Thursday.",
            "There was an account as well, which had been forgotten and had therefore done splendidly.",
        ),
        picture="A tin full of coins, from which a small tree grows",
        minutes=3,
    ),
    Story(
        id="night-train",
        topic=Topic.OUTDOORS,
        title="The slow train to the mountains runs all night again",
        teaser="You board in the rain, and wake up above the clouds with a cup of tea in your hand.",
        text=(
            "It has two sleeping cars, one of which is older than the line. It stops wherever somebody holds up a "
            "lamp, and for deer.",
            "Take the left side. At a quarter to six the guard goes through and knocks on every door, because of "
            "the light.",
        ),
        picture="A train with lit windows on a viaduct, mountains behind it",
        minutes=4,
    ),
    Story(
        id="rain-walks",
        topic=Topic.OUTDOORS,
        title="Three walks that are better in the rain",
        teaser="The gorge gets its waterfalls back, the moor its mirrors, and you get both to yourself.",
        text=(
            "One: up the Stair, when the brook takes it too. Two: round the Mere, where every puddle has a sky in it. "
            "Three: along the sea wall, for people who like to be applauded.",
            "Bring a second pair of socks. That is the whole secret.",
        ),
        picture="An umbrella on a hill, under slanting rain",
        minutes=3,
    ),
)
"""Everything that can stand on the front page."""
