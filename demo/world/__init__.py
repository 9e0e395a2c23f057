"""A small world of coloured shapes, in which every answer is known: what the demo's trained
checkpoints learn and are judged by.

scenes     what there is: things on a background, drawn at random from a seed; one combination in
           ten is never trained on
pictures   a scene as 48 x 48 pixels
words      a scene as a prompt, a caption, questions with their answers; and texts read back
oracle     a scene read from pixels, and what a picture or a text gets right of what was said or
           shown
"""
