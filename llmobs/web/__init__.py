"""The page and the JSON API over the store, and a client of that API.

`app.py` makes the server's side and is heavy; `client.py` asks it and is light. So nothing is
imported here.
"""
