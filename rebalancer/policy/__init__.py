"""Judgements on a snapshot. Pure: the same picture gives the same verdict, and every "no" carries a witness."""
