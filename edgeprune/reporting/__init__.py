"""What a person looks at: an HTML report with plots, a table for a pull request, JUnit XML for a CI system."""
