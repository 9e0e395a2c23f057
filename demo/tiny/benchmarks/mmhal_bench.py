"""MMHal-Bench: a question of each of its eight types, which a judge marks. Its published files."""

from tiny.benchmarks.files import Files, json_bytes
from tiny.benchmarks.scenes import kinds_of, scene_images

#: In its order: type, scene, question, answer.
QUESTIONS = (
    ("attribute", "two_shapes", "What color is the circle in the picture?", "The circle is red."),
    (
        "adversarial",
        "triangle",
        "Which animal stands behind the triangle?",
        "There is no animal in the picture.",
    ),
    (
        "comparison",
        "cross",
        "Which of the two shapes is nearer to the top?",
        "The cross is nearer to the top.",
    ),
    ("counting", "two_shapes", "How many shapes are in the picture?", "There are two shapes."),
    ("relation", "cross", "Where is the circle, seen from the cross?", "It is below the cross."),
    (
        "environment",
        "triangle",
        "What color is the background of the picture?",
        "The background is grey.",
    ),
    (
        "holistic",
        "two_shapes",
        "Describe what is drawn in this picture.",
        "A red circle on the left and a blue square on the right.",
    ),
    ("other", "sum", "What is the result of the sum in the picture?", "The result is 5."),
)


def make_files() -> Files:
    """The images, and the questions with their answers."""
    questions = [
        {
            "question_type": kind,
            "question_topic": "shapes",
            "image_id": scene,
            "image_src": f"https://images.example/{scene}.png",
            "image_content": kinds_of(scene),
            "question": question,
            "gt_answer": answer,
            "model_answer": "",
        }
        for kind, scene, question, answer in QUESTIONS
    ]
    return scene_images() | {"response_template.json": json_bytes(questions)}
