"""Targets and seeds of damage that once was taken for a bug of isotrain."""

SEEDS: list[tuple[str, int]] = [
    ("resume checkpoint", 6357),  # an impossible offset in the directory of the archive
    ("resume checkpoint", 40428),  # callbacks that are a list
    ("configuration", 40675),  # a URL whose port is no number
    ("katib best", 30007),  # a socket
    ("predict text folder", 60673),  # names of columns that are a text
    ("evaluate image", 60831),  # a best validation without its step
    ("katib run again", 60032),  # a time that is a number
    ("katib run again", 30069),  # a trial that Optuna's storage contradicts
    ("predict qa folder", 30862),  # a setting of isotrain.json that is text
    ("explain calibrate", 31137),  # a verdict without a key
    ("configuration", 1795797062),  # a whole number beyond all floats
]
