"""Publishing: only what is certified, with everything that proves it, and its tags last.

gate          which rows may be published, and why another may not
push          the engine's part: the image, under a throw-away tag
attachments   what is attached to it, as data
attach        storing that, and reading everything back
transaction   taking it all back when something fails
flow          the order of things
"""
