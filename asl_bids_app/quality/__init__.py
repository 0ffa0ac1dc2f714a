"""Quality metrics of maps, with definitions and units."""
