"""The monitor: Flower with a page, an API and metrics of the paid calls."""
