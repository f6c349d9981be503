"""The shared part of the framework classes and the command line: settings, loaded models, calls."""
