"""The GPU engine is tried on the machine at hand: are its kernels right there, and are they faster?

``when`` an eager call has that done, and how long it may take; ``process``, in which it is done; a
``trial``: of a ``layer``, by the ``oracle``, with ``guards`` round its memory, a ``proof`` and a
``race``. ``tune`` and ``command`` (python -m fastrnn gpu) have it done beforehand.
"""
