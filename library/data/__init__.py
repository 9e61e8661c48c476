"""Pictures and captions on disk -> records -> buckets -> an epoch's plan -> batches.

`training_data.TrainingData.scan` finds what is there (and everything wrong with it) without importing torch;
`loader.make_loader` turns it into batches.
"""
