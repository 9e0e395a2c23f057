"""A task's questions in parts, each answered by a job of its own. Those about one picture are in
one part, and which part that is depends on nothing but the picture and how many parts there are.
"""

#: The environment variable that names the part that lmms-eval is to have answered, or says JOINED:
#: that the parts have answered all questions.
PART = "PDS_DPO_PART"
JOINED = "joined"
#: The part that all questions are.
WHOLE = "1-of-1"


def names_of_parts(count: int) -> list[str]:
    """The names of so many parts; none where one job answers everything."""
    return [f"{number}-of-{count}" for number in range(1, count + 1)] if count > 1 else []


def is_in_part(part: str, picture: str) -> bool:
    """Whether a question about a picture, by its hexadecimal digest, is in a part."""
    number, count = map(int, part.split("-of-"))
    return int(picture[:16], 16) % count == number - 1


def are_of_one_division(part: str, other: str) -> bool:
    """Whether two parts, by their names, are two of the same: they have no question in common."""
    count = part.partition("-of-")[2]
    return part != other and count != "" and count == other.partition("-of-")[2]
