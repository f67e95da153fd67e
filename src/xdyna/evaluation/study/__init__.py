"""The user study (paper, Tables 3 and 6): make a blinded set, serve it, analyse what people answered.

::

    cases + methods --make--> study folder + key --serve--> answers in SQLite
       --ratings (key un-blinds)--> Ratings --analysis x statistics--> Analysis --report--> tables and plots

Whoever serves needs no key, and nothing that is served tells a method's name.
"""
