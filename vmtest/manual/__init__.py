"""The documentation as a user of the installed package reads it: ``vmtest docs TOPIC``."""
