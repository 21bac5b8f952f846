"""What trains and scores the demo model: scenes, conversations about them, a tokenizer, a fast model, the export."""
