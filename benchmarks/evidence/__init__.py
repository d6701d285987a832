"""The paper's claims on a real small model: stages that run the product's commands and keep what they measured."""
