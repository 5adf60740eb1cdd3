"""The learner: Vowpal Wabbit, and the policies that configure it."""
