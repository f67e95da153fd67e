"""People modelled in three dimensions: a skinned body, cloth and hair round it, light and shadow, in torch."""
