"""Scoring restored faces as papers do: named protocols, whole folders, reports."""
