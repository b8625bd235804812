from llmobs.cli import main

main()
