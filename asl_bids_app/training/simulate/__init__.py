"""From phantoms to signals: physics, protocols, disturbances."""
