"""python -m nst_jax: the program nst."""

from nst_programs import nst

if __name__ == "__main__":
    nst()
