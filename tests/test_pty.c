/* layers: base */
/* A conversation from outside: drives the real program through a pseudo-terminal, as a person at a keyboard would, with the bundled model. */
#include "terminal.h"
#include "adapter_folder.h"

/* ---- typing ------------------------------------------------------------------------------------------------------ */

static void test_lines(void **state)
{
    (void)state;
    struct terminal t;
    char *saved = in_home("lines.json");
    START(&t, "--max-tokens", "3", "--save-history", saved, "--system-prompt", "All is well.");
    tell(&t, "Once upon a time\n");
    expect(&t, "no chat template");
    expect(&t, "Assistant> ");
    tell(&t, "one \\\n");
    expect(&t, "...> ");
    type(&t, "two\n");
    tell(&t, "\033[200~pasted\rlines\tof\ntext\033[201~"); /* line ends in what is pasted end nothing */
    expect(&t, "text");
    type(&t, "\n");
    expect(&t, "cut after");
    tell(&t, "dropped\003");
    expect(&t, "leaves");
    tell(&t, "x火犬e\xcc\x81👍\033[D\033[D\033[D\033[D\177\n"); /* four characters back: before 犬; that before it goes */
    expect(&t, "Assistant> ");
    tell(&t, "\033[A\033[A\n"); /* history: the pasted lines again */
    expect(&t, "cut after");
    tell(&t, "//a slash\n");
    expect(&t, "Assistant> ");
    tell(&t, "half a line \004\025\004"); /* Ctrl-D leaves an empty line only */
    assert_int_equal(finish(&t), 0);
    file_has(saved, "\"one \\ntwo\"");
    file_has(saved, "\"pasted\\nlines\\tof\\ntext\"");
    file_has(saved, "\"x犬e\xcc\x81👍\"");
    file_has(saved, "\"/a slash\"");
    file_has(saved, "\"All is well.\"");
    char *text = read_file(saved);
    assert_null(strstr(text, "dropped"));
    assert_null(strstr(text, "half"));
    free(text);
    START(&t, "--max-tokens", "3"); /* typed lines are remembered */
    tell(&t, "\033[A\033[A\033[A"); /* the slash, the pasted lines again, this */
    expect(&t, "犬");
    type(&t, "\025\004");
    assert_int_equal(finish(&t), 0);
}

static void test_interrupt(void **state)
{
    (void)state;
    struct terminal t;
    START(&t, "--ignore-eos", "--max-tokens", "100000", "--ctx", "100000");
    tell(&t, "Once upon a time\n");
    expect(&t, "Assistant> ");
    type(&t, "\003");
    expect(&t, "stopped");
    tell(&t, "/stats\n");
    expect(&t, "messages  2");
    tell(&t, "\004");
    assert_int_equal(finish(&t), 0);
}

/* ---- commands ---------------------------------------------------------------------------------------------------- */

static void test_commands(void **state)
{
    (void)state;
    struct terminal t;
    char line[400], *saved = in_home("commands.json"), *config = in_home("saved.toml");
    START(&t, "--max-tokens", "2");
    tell(&t, "Once\n");
    tell(&t, "/help\n");
    expect(&t, "/backend");
    tell(&t, "/h\n");
    expect(&t, "/exit /quit /q");
    tell(&t, "/?\n");
    expect(&t, "/config /cfg");
    tell(&t, "/sys Be brief.\n");
    expect(&t, "System prompt: Be brief.");
    tell(&t, "/backend reference\n");
    expect(&t, "reference backend");
    snprintf(line, sizeof line, "/model %s\n", MODEL);
    tell(&t, line);
    expect(&t, "reference backend");
    tell(&t, "/model /nowhere.gguf\n");
    expect(&t, "Model file not found: /nowhere.gguf");
    tell(&t, "/backend nonsense\n");
    expect(&t, "nonsense");
    tell(&t, "/backend\n");
    expect(&t, "* reference");
    tell(&t, "/status\n");
    expect(&t, "messages  2 and a system prompt"); /* nothing was lost */
    expect(&t, "memory");
    snprintf(line, sizeof line, "/save %s\n", saved);
    tell(&t, line);
    expect(&t, "Saved in");
    tell(&t, "/cls\n");
    expect(&t, "forgotten");
    tell(&t, "/stats\n");
    expect(&t, "messages  0 and a system prompt");
    snprintf(line, sizeof line, "/load %s\n", saved);
    tell(&t, line);
    expect(&t, "2 messages of");
    tell(&t, "/template\n");
    expect(&t, "no chat template");
    tell(&t, "/config\n");
    expect(&t, "max_tokens = 2  # command line");
    snprintf(line, sizeof line, "/cfg save %s\n", config);
    tell(&t, line);
    expect(&t, "Saved in");
    tell(&t, "/system \"\"\n");
    expect(&t, "There is no system prompt");
    tell(&t, "/modle\n");
    expect(&t, "the nearest is /model");
    tell(&t, "/q\n");
    assert_int_equal(finish(&t), 0);
    file_has(config, "max_tokens = 2");
    file_has(saved, "Be brief.");
}

/* What a conversation answers to these lines, of which the last says something. */
static char *answer_to(const char *lines, const char *options)
{
    char command[2000], text[8192];
    snprintf(command, sizeof command, "printf '%s' | " KAGARI " -m " MODEL " -b cpu -t 1 --temperature 0 -n 12 --chat --log-level error %s", lines, options);
    FILE *f = popen(command, "r");
    assert_non_null(f);
    size_t n = fread(text, 1, sizeof text - 1, f);
    assert_int_equal(pclose(f), 0);
    text[n] = 0;
    while (n && text[n - 1] == '\n') text[--n] = 0;
    char *last = strrchr(text, '\n');
    return strdup(last ? last + 1 : text);
}

/* A conversation with adapters that come and go. */
static void test_adapters(void **state)
{
    (void)state;
    char *folder = in_home("peft"), with[500], lines[8][600];
    write_adapter_folder(folder);
    snprintf(with, sizeof with, "--lora %s", folder);
    char *plain = answer_to("Once\\n", ""), *adapted = answer_to("Once\\n", with);
    assert_string_not_equal(plain, adapted);
    const struct {
        const char *commands, *options, *want;
    } cases[] = {
        {"/lora 1=0\\n", with, plain},          {"/lora peft=0\\n/lora peft\\n", with, adapted}, {"/lora none\\n", with, plain},
        {"/lora %s\\n", "", adapted},           {"/lora %s=3\\n/lora 1=1\\n", "", adapted},       {"/lora %s=0\\n", "", plain},
        {"/lora %s\\n/lora 1=0\\n/backend reference\\n", "", plain},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *at = strstr(cases[i].commands, "%s");
        snprintf(lines[i], sizeof lines[i], "%.*s%s%sOnce\\n", at ? (int)(at - cases[i].commands) : 0, cases[i].commands, at ? folder : "", at ? at + 2 : cases[i].commands);
        char *got = answer_to(lines[i], cases[i].options);
        if (strcmp(got, cases[i].want) != 0) fail_msg("%s: '%s', not '%s'", lines[i], got, cases[i].want);
        free(got);
    }
    free(plain);
    free(adapted);
}

static void test_template(void **state)
{
    (void)state;
    struct terminal t;
    char *path = in_home("template.jinja");
    write_file(path, "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}[assistant] {% endif %}");
    START(&t, "--max-tokens", "4", "--template", path);
    tell(&t, "Once\n");
    tell(&t, "/t\n");
    expect(&t, "Chat template off");
    tell(&t, "/toggle\n");
    expect(&t, "Chat template on");
    tell(&t, "/exit\n");
    assert_int_equal(finish(&t), 0);

    write_file(path, "{{ messages[0].content }}<think>"); /* whatever comes is reasoning */
    START(&t, "--max-tokens", "4", "--template", path, "--show-thinking");
    tell(&t, "Once\n");
    expect(&t, "Thinking: ");
    tell(&t, "\004");
    assert_int_equal(finish(&t), 0);
    START(&t, "--max-tokens", "4", "--template", path);
    tell(&t, "Once\n");
    expect(&t, "Assistant> ");
    const char *from = t.text + t.seen;
    size_t offset = (size_t)(from - t.text);
    expect(&t, "cut after --max-tokens");
    assert_null(memmem(t.text + offset, t.seen - offset, "Thinking", 8));
    tell(&t, "\004");
    assert_int_equal(finish(&t), 0);
}

/* ---- the cache ---------------------------------------------------------------------------------------------------- */

static void read_numbers(struct terminal *t, size_t *prompt, size_t *reused, size_t *computed)
{
    tell(t, "/stats\n");
    const char *at = expect(t, "prompt    ");
    size_t offset = (size_t)(at - t->text);
    expect(t, "computed");
    assert_int_equal(sscanf(t->text + offset, "%zu tokens: %zu reused from the cache, %zu computed", prompt, reused, computed), 3);
}

static void test_long_conversation(void **state)
{
    (void)state;
    struct terminal t;
    size_t prompt, reused, computed;
    char *path = in_home("long.json");
    FILE *f = fopen(path, "w");
    fputs("{\"messages\": [{\"role\": \"user\", \"content\": \"", f);
    for (int i = 0; i < 130; i++) fputs("The fox ran to the old tree. ", f);
    fputs("\"}, {\"role\": \"assistant\", \"content\": \"It did.\"}]}", f);
    fclose(f);
    START(&t, "--max-tokens", "4", "--ctx", "2048", "--load-history", path);
    tell(&t, "And then?\n");
    read_numbers(&t, &prompt, &reused, &computed);
    assert_in_range(prompt, 1000, 1500);
    tell(&t, "And then?\n");
    read_numbers(&t, &prompt, &reused, &computed);
    print_message("second turn: %zu tokens, %zu reused, %zu computed\n", prompt, reused, computed);
    assert_true(prompt > 1000 && computed < 12 && reused + computed == prompt);
    tell(&t, "\004");
    assert_int_equal(finish(&t), 0);
}

static void test_full_context(void **state)
{
    (void)state;
    struct terminal t;
    START(&t, "--max-tokens", "16", "--ctx", "64", "--ignore-eos", "--system-prompt", "All is well.");
    for (int i = 0; i < 4; i++) tell(&t, "The fox ran to the old tree and saw a bird.\n");
    tell(&t, "/stats\n");
    expect(&t, "and a system prompt");
    assert_non_null(strstr(t.text, "no longer shown to the model\r\n"));
    size_t hidden;
    assert_int_equal(sscanf(t.text + t.seen, ", %zu of them", &hidden), 1);
    assert_true(hidden >= 2);
    char line[600] = "";
    for (int i = 0; i < 20; i++) strcat(line, "The fox ran to the tree. ");
    tell(&t, strcat(line, "\n"));
    expect(&t, "context"); /* one message that is too long: an error, and life goes on */
    tell(&t, "\004");
    assert_int_equal(finish(&t), 0);
}

/* ---- files -------------------------------------------------------------------------------------------------------- */

static void test_signals_save(void **state)
{
    (void)state;
    static const int signals[] = {SIGTERM, SIGHUP};
    for (size_t i = 0; i < 2; i++) {
        struct terminal t;
        char *path = in_home("signal.json");
        START(&t, "--max-tokens", "2", "--save-history", path);
        tell(&t, "Once\n");
        expect(&t, "Assistant> ");
        expect(&t, "You> ");
        remove(path);
        kill(t.pid, signals[i]);
        assert_int_equal(finish(&t), 128 + signals[i]);
        file_has(path, "\"Once\"");
    }
}

static void test_damaged_files(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "", "{", "[]", "{\"messages\": 3}", "{\"messages\": [{\"role\": \"user\"}]}", "{\"messages\": [{\"role\": \"king\", \"content\": \"a\"}]}",
        "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"system\", \"content\": \"a\"}]}", "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}",
    };
    struct terminal t;
    char *path = in_home("bad.json"), line[400];
    START(&t, "--max-tokens", "2");
    tell(&t, "Once\n");
    snprintf(line, sizeof line, "/load %s\n", path);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        write_file(path, bad[i]);
        tell(&t, line);
        expect(&t, "kagari:");
        tell(&t, "/stats\n");
        expect(&t, "messages  2,");
    }
    tell(&t, "\004");
    assert_int_equal(finish(&t), 0);
    START(&t, "--load-history", path);
    expect(&t, "is damaged: line 1");
    assert_int_equal(finish(&t), 1);
}

/* Killed at any time: the file is that of before or that of after. */
static void test_kill(void **state)
{
    (void)state;
    char *path = in_home("kill.json");
    srand(1);
    for (int i = 0; i < 12; i++) {
        int pipes[2];
        assert_int_equal(pipe(pipes), 0);
        pid_t pid = fork();
        if (pid == 0) {
            dup2(pipes[0], 0);
            close(pipes[1]);
            if (!freopen("/dev/null", "w", stdout)) _exit(126);
            execl(KAGARI, "kagari", "-c", "/dev/null", "-m", MODEL, "-b", "cpu", "-t", "1", "--chat", "--max-tokens", "1", "--log-level", "error", "--save-history", path,
                  "--load-history", path, (char *)NULL);
            _exit(127);
        }
        close(pipes[0]);
        for (int k = 0; k < 200; k++)
            if (write(pipes[1], "Once\n", 5) != 5) break;
        struct timespec t = {.tv_nsec = (60 + rand() % 150) * 1000000L};
        nanosleep(&t, NULL);
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        close(pipes[1]);
        char *text = read_file(path);
        size_t n = text ? strlen(text) : 0;
        if (text) assert_true(n > 20 && text[0] == '{' && strcmp(text + n - 7, "\n  ]\n}\n") == 0);
        free(text);
    }
    file_has(path, "\"Once\"");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines),
        cmocka_unit_test(test_interrupt),
        cmocka_unit_test(test_commands),
        cmocka_unit_test(test_adapters), cmocka_unit_test(test_template),
        cmocka_unit_test(test_long_conversation),
        cmocka_unit_test(test_full_context),
        cmocka_unit_test(test_signals_save),
        cmocka_unit_test(test_damaged_files),
        cmocka_unit_test(test_kill),
    };
    return cmocka_run_group_tests(tests, make_home, remove_home);
}
