# Needs: a prompt table, and a server, service, checkpoint folder or Inspect log that answers it.
# Makes: graded answers of each endpoint, and the same as a log for Inspect's viewer.


rule endpoints:
    input:
        prompts=given(PLAN.chosen.asked) if PLAN.chosen.asked else [],
    output:
        table=f"{RESULTS}/endpoints/{{endpoint}}/endpoints.parquet",
        log=f"{RESULTS}/endpoints/{{endpoint}}/answers.eval",
    log:
        f"{RESULTS}/endpoints/{{endpoint}}/endpoints.log",
    benchmark:
        f"{RESULTS}/endpoints/{{endpoint}}/endpoints.benchmark.tsv"
    params:
        settings=settings("max_thinking_tokens", "max_answer_tokens", "judge", "keep_text", "seed")
        | LIMITS,
        endpoint=endpoint,
        journal=f"{RESULTS}/endpoints/journal",
        code=code("endpoints.py"),
    script:
        "../scripts/endpoints.py"
