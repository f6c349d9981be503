"""What the framework classes and the command line share: settings, loaded models, calls."""
