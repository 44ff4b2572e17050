"""What a run will take before the first call: a dry run of the recipe's own procedures, scaled and priced."""
