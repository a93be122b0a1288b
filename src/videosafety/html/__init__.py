"""Page components shared by the report and by a review page: shell, tables, charts, and media that stays blurred.

Everything that reaches a page through these components is untrusted: a model's answer, an id, a file name. ``page``
escapes it, shows control characters as marks, and bounds it; nothing on a page is fetched from anywhere.
"""
