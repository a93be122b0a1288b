"""Chapter: train a defence. Stages 1 to 3 (paper section 4.2): alarm initialisation, AT-SFT, reasoning cold start."""
