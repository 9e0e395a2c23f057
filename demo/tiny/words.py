"""The words that the tiny models know: what they answer and ask, and what prompts are made of."""

from collections.abc import Mapping

# The words of the answers by word class. A word is in one class only, because the class is read
# from the token.
ANSWER_WORDS: dict[str, str] = {
    "yes_no": "Yes No",
    "article": "The A One Another Each This Every That",
    "adjective": "small large red green bright quiet wooden old round shiny",
    "subject": (
        "man woman child dog cat bird horse car boat bus train cook farmer teacher student painter"
        " worker tree flower"
    ),
    "verb": (
        "holds faces carries covers watches touches follows crosses passes shows leaves reaches"
        " fills meets"
    ),
    "number": "the some many two three four several few",
    "object_adjective": (
        "blue yellow white black orange tall narrow heavy colourful empty striped tiny"
    ),
    "object": (
        "lamps tables bowls baskets umbrellas balls books chairs windows benches bottles plates"
        " cups boxes flags bicycles"
    ),
    "preposition": "near under behind beside above before inside beyond against around",
    "place": (
        "buildings trees bridges curtains mountains clouds shadows people houses walls boats stones"
        " ladders shelves"
    ),
    "and": "and",
    "stop": ".",
}

# The words of the questions that the instruction-writing model asks.
QUESTION_WORDS: dict[str, str] = {
    "what": "What Who",
    "how": "How",
    "many": "many",
    "things": "objects colours animals lights shapes signs cars windows birds chairs",
    "is": "are",
    "seen": "visible standing hanging lying placed arranged painted",
    "what_verb": "stands lies hangs moves rests appears sits waits",
    "where": "near behind beside under above around",
    "the": "the",
    "detail": "red blue green small large wooden bright old white yellow",
    "thing": "table window tree house lamp boat man woman dog bridge bench bowl street",
    "in": "in",
    "this": "this",
    "image": "image picture scene photo",
    "mark": "?",
}

# Further words, so that a prompt of 40 words stays below CLIP's 77 tokens. Not one is ever
# answered.
SCENE_WORDS = """
a about across after afternoon air airport alley along ancient antique apple apples apron apt
arches are arm arms arranged art artist as at autumn baker baking balcony balloon balloons bamboo
banner barn barrels baskets beach beam beans bed behind bell belt bench benches between bicycles
big blanket blankets blossoms blow board boats boiling books boots bowls boxes boy boys branch
branches bread breeze brick bricks bridge bright brown brush brushes bucket buckets building built
busy butter by cake camera candle candles canal canoe canvas cap carrots carrying carved cast catch
ceiling chalk cheese cherry chef chicken children chimney chopping church circle city classroom
clay clear cliff climbing clock close cloth clothes cloud coast coat coffee cold coloured colours
concrete cone conveyor cooking copper corner corridor couple courtyard crane cranes cream crossing
crowd cup cups curved cutting cyclist dark dawn day deep deer desk desks distance dock dogs door
doors doorway down drawing dress dressed drifting driver drying duck ducks dusk dust each early
eating edge eggs eight elderly engine evening eyes facade face factory falling family farm feeding
fence ferry festival field fields fire fireplace fireworks fish fisherman fishing five flags
floating floor flour flowers flying fog foggy foreground forest fountain four fox friends from
frost frozen fruit full garden gate gather girl girls glass glasses gloves glowing goat gold golden
grass gravel gray great grey group guitar hair hall hammer hand hands hanging harbour hat hats
heavy helmet herbs high hill hills his her holding hot house hung ice icy in inside into iron
island its jacket jar jars jumping kettle kitchen kite kites kneeling knife lake lamp lamps lantern
lanterns large leaf leaning leather left lemon lemons library light lighthouse lightning lights
line lined lined-up lit little loaf loaves long looking loom low machine machines makes making
mango map marble market meadow meal melting metal microscope middle midday mirror mist morning moss
mountain mountains mud mug mural museum mushrooms narrow neon nest next night nine noodles noon
ocean of off oil old on onto open orchard out oven over owl painted painting palm pan paper parade
park parked parrot passengers path peppers person piano pier pigeons pile pine pink pipes pizza
plant plants plastic plates platform playground playing plaza pond poster pot pots pottery pouring
protective puddle puddles pulling pumpkin pumpkins purple pushing rabbit rail railing rain rainbow
raincoat raining reading red reflected reflecting reflections resting rice riding right ripe rising
river road robot rock rocks roof rooftop rooftops room rope rose rough row rows running rusty sail
sailboat sails sand scarf scattered school scooter sculpture sea seagull seagulls seated seven
sheep shelf ship shirt shoes shop shore side sidewalk sign silver single sits sitting six sketch
skates skating sky sleeping slicing slope slow smiling smoke snow snowman snowy soft soup spices
spoon spread square squirrel stack stacked stage stairs stall stand standing stands statue steam
steaming steel steep step steps still stir stirring stone storm stormy stove stream street
stretched studio summer sun sunflowers sunlight sunny sunrise sunset surface surrounded swan
sweater swimming swing table tables tea teacher ten tent terrace their them three through tiles
tomatoes tools top towards towel tower town toy tracks tractor traffic train tram tray trees
triangle truck tunnel turning two umbrellas under up valley van vase vegetables vendor village
vintage violin waiting walking wall warehouse warm washing watching water waterfall watering wave
waves wearing weather weaving welder wet wheat wheel wheels while wide wind window windows windy
wine winter with woman women wood wooden wool work workers workshop woven wrapped writing yard
yellow young zebra ! 's
"""

# Words that chat templates and instructions are made of.
TEMPLATE_WORDS = """
USER ASSISTANT INST SYS system user assistant chat between curious human artificial intelligence
gives helpful detailed polite answers Answer question using single word phrase Please answer yes or
no Is there Are there Does an image How many What Describe in detail
"""


def words_by_class(words: Mapping[str, str]) -> dict[str, list[str]]:
    """The words of each class, as lists."""
    return {name: text.split() for name, text in words.items()}


def corpus() -> list[str]:
    """The words that the vocabularies are made of, each once, in a fixed order."""
    words = [
        word
        for table in (ANSWER_WORDS, QUESTION_WORDS)
        for text in table.values()
        for word in text.split()
    ]
    words += TEMPLATE_WORDS.split() + SCENE_WORDS.split()
    return list(dict.fromkeys(words + [word.lower() for word in words]))
