"""Settings of simulated noise for tests."""

from asl_bids_app.training.config.noise_config import NoiseConfig


def thermal_only(snr: float) -> NoiseConfig:
    """Return settings with white Gaussian noise of one SNR, reported exactly, and nothing else."""
    off = (0.0, 0.0)
    return NoiseConfig(
        snr=(snr, snr),
        noise_type="gaussian",
        correlation_chance=0.0,
        g_factor=off,
        physiological=off,
        drift=off,
        spike_chance=0.0,
        motion=off,
        pair_motion=off,
        reported_error=0.0,
        reported_flat=0.0,
    )
