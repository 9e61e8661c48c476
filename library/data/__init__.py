"""Pictures and captions on disk -> records -> buckets -> an epoch's plan -> batches.

`training_data.TrainingData.scan` finds what is there, and everything that is wrong with it, without importing
torch; `builder.BatchBuilder` and `loader.make_loader` turn it into batches.
"""
