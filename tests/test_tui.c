/* layers: base */
/* Full-screen mode from outside: keys go in, and what the screen shows is looked at. The commands of a conversation, which both faces have. */
#define PTY_SCREEN
#include "terminal.h"
#include "adapter_folder.h"

#define START_TUI(t, ...) (START(t, "--tui", __VA_ARGS__), show(t, 24, 100), shows(t, "Ctrl-D leaves."), idle(t))
#define PASTE(text) "\033[200~" text "\033[201~"

/* Waits until what was asked for has been done. */
static void idle(struct terminal *t)
{
    type(t, "§"); /* keys act in their order: when it is seen, what was typed before has begun */
    shows(t, "§");
    type(t, "§");
    shows(t, "§§"); /* and the screen with the first is there as a whole */
    shows(t, "/help  Ctrl-D leaves");
    type(t, "\177\177");
    shows_no(t, "§");
}

static void leave(struct terminal *t)
{
    type(t, "\004");
    assert_int_equal(finish(t), 0);
}

/* ---- what is seen ------------------------------------------------------------------------------------------------- */

static void test_panes(void **state)
{
    (void)state;
    struct terminal t;
    char *saved = in_home("tui.json");
    START_TUI(&t, "--max-tokens", "12", "--save-history", saved, "--system-prompt", "All is well.");
    shows_at(&t, 21, "── Input ──");
    shows_at(&t, 0, "── Chat ──");
    shows_at(&t, 23, "stories-q4_k_m.gguf | cpu | 0/1024 tokens");
    shows(&t, "All is well.");
    type(&t, "Once upon a time");
    shows_at(&t, 22, "> Once upon a time");
    type(&t, "\r");
    shows(&t, "cut after --max-tokens");
    idle(&t);
    int you = shows(&t, "You"), assistant = shows(&t, "Assistant");
    assert_true(strcmp(row_text(&t, you), "You") == 0 && strcmp(row_text(&t, you + 1), "  Once upon a time") == 0 && assistant > you);
    assert_true(strlen(row_text(&t, assistant + 1)) > 5);
    shows(&t, "tok/s");
    shows_no(&t, "| 0/1024 tokens");
    idle(&t);
    leave(&t);
    file_has(saved, "\"Once upon a time\"");
    START_TUI(&t, "--load-history", saved); /* what was said before is there again */
    shows(&t, "Once upon a time");
    shows(&t, "All is well.");
    leave(&t);
}

/* Wide characters, marks on others, characters of several parts: the cursor and what Backspace takes. */
static void test_characters(void **state)
{
    (void)state;
    struct terminal t;
    VTermPos cursor;
    START_TUI(&t, "--max-tokens", "2");
    type(&t, "x火犬e\xcc\x81👍");
    shows(&t, "> x火犬e\xcc\x81👍");
    settle(&t);
    vterm_state_get_cursorpos(vterm_obtain_state(t.vt), &cursor);
    assert_int_equal(cursor.row, 22);
    assert_int_equal(cursor.col, 2 + 1 + 2 + 2 + 1 + 2);
    type(&t, "\177\177"); /* the letter goes with its mark */
    shows(&t, "> x火犬");
    shows_no(&t, "e\xcc\x81");
    type(&t, "\033[D\033[D\177\005!"); /* before 犬 stands 火, before that x */
    shows(&t, "> 火犬!");
    type(&t, "\r");
    shows(&t, "  火犬!");
    idle(&t);
    char wide[400] = "> ", rest[100] = "  "; /* goes on in the next row, no character cut */
    for (int i = 0; i < 49; i++) strcat(wide, "火");
    for (int i = 0; i < 11; i++) strcat(rest, "火");
    type(&t, wide + 2);
    type(&t, rest + 2);
    shows_row(&t, 22, rest);
    shows_row(&t, 21, wide);
    type(&t, "\025");
    shows_no(&t, "> 火");
    leave(&t);
}

static void test_lines(void **state)
{
    (void)state;
    struct terminal t;
    char *saved = in_home("tui-lines.json");
    START_TUI(&t, "--max-tokens", "2", "--save-history", saved);
    type(&t, "one\\\rtwo\nthree\033\rfour"); /* a backslash, Ctrl-J, Alt-Enter */
    shows_row(&t, 22, "  four");
    shows_row(&t, 21, "  three");
    shows_row(&t, 20, "  two");
    shows_row(&t, 19, "> one");
    type(&t, "\033[A\001>\r"); /* up, the beginning of that line */
    idle(&t);
    type(&t, PASTE("pasted\rlines\tof text") "\r");
    shows(&t, "lines    of text");
    idle(&t);
    type(&t, "dropped");
    shows(&t, "> dropped");
    type(&t, "\003");
    shows_no(&t, "dropped");
    settle(&t);
    type(&t, "\033[A\033[A\033[A"); /* the two lines of what was pasted, and what was sent before that */
    shows(&t, "> one");
    type(&t, "\033[B\033[B\033[B\033[B\033[B\033[B");
    shows_no(&t, "> one");
    type(&t, "//slash and words\033b\027!\r");
    shows(&t, "  /slash !words");
    idle(&t);
    leave(&t);
    file_has(saved, "\"one\\ntwo\\n>three\\nfour\"");
    file_has(saved, "\"pasted\\nlines\\tof text\"");
    file_has(saved, "\"/slash !words\"");
    START_TUI(&t, "--max-tokens", "2"); /* typed lines are remembered, by both faces */
    type(&t, "\033[A");
    shows(&t, "> //slash !words");
    type(&t, "\003");
    leave(&t);
}

static void test_scroll(void **state)
{
    (void)state;
    struct terminal t;
    START_TUI(&t, "--max-tokens", "2");
    type(&t, "/config\r");
    idle(&t);
    shows(&t, "[ui]");
    type(&t, "\033[5~");
    shows(&t, "rows below");
    shows_no(&t, "color = ");
    type(&t, "\033[6~");
    shows_no(&t, "rows below");
    type(&t, "\033[<64;5;5M"); /* the wheel */
    shows(&t, "3 rows below");
    type(&t, "\033[<65;5;5M");
    shows_no(&t, "rows below");
    type(&t, "\033[1;5H");
    shows(&t, "Ctrl-D leaves.");
    type(&t, "\033[1;5F");
    shows_no(&t, "rows below");
    leave(&t);
}

static void test_sizes(void **state)
{
    (void)state;
    struct terminal t;
    START_TUI(&t, "--max-tokens", "2");
    type(&t, "This is a line that is longer than sixty columns, as can be seen by everybody.\r");
    idle(&t);
    resize(&t, 30, 60);
    shows_at(&t, 27, "── Input ──");
    shows(&t, "  This is a line that is longer than sixty columns, as can"); /* cut at a space */
    shows(&t, "  be seen by everybody.");
    resize(&t, 5, 15);
    shows(&t, "This terminal i");
    type(&t, "x");
    resize(&t, 1, 1);
    receive(&t, 300);
    resize(&t, 12, 40);
    shows_at(&t, 10, "> x");
    type(&t, "\177");
    leave(&t);
}

static void test_colors(void **state)
{
    (void)state;
    struct terminal t;
    for (int plain = 0; plain < 2; plain++) {
        if (plain) setenv("NO_COLOR", "1", 1);
        START_TUI(&t, "--max-tokens", "2");
        idle(&t);
        bool colored = strstr(t.text, "\033[33m") || strstr(t.text, "\033[36m");
        assert_true(colored == !plain);
        leave(&t);
    }
    unsetenv("NO_COLOR");
}

static void test_thinking(void **state)
{
    (void)state;
    struct terminal t;
    char *path = in_home("tui.jinja");
    write_file(path, "{{ messages[0].content }}<think>"); /* whatever comes is reasoning */
    START_TUI(&t, "--max-tokens", "4", "--template", path, "--show-thinking");
    type(&t, "Once\r");
    shows(&t, "Thinking");
    leave(&t);
    START_TUI(&t, "--max-tokens", "4", "--template", path);
    shows(&t, "📋 stories");
    type(&t, "Once\r");
    shows(&t, "cut after");
    idle(&t);
    assert_int_equal(row_with(&t, "Thinking"), -1);
    type(&t, "\024");
    shows(&t, "Thinking");
    type(&t, "\024");
    shows_no(&t, "Thinking");
    type(&t, "\033[Z");
    shows(&t, "Chat template off");
    shows_no(&t, "📋");
    type(&t, "\033[Z");
    shows(&t, "📋 stories");
    leave(&t);
}

/* ---- keys that end something ---------------------------------------------------------------------------------------- */

static void test_interrupt(void **state)
{
    (void)state;
    struct terminal t;
    START_TUI(&t, "--ignore-eos", "--max-tokens", "100000", "--ctx", "100000", "--stats");
    type(&t, "Once upon a time\r");
    shows(&t, "Assistant");
    shows(&t, "answering");
    type(&t, "typed meanwhile\r"); /* keys act while the answer comes */
    shows(&t, "not sent: wait");
    type(&t, "\003");
    shows(&t, "stopped");
    shows(&t, "first token after"); /* --stats */
    idle(&t);
    shows(&t, "> typed meanwhile");
    type(&t, "\003");
    shows_no(&t, "typed meanwhile");
    type(&t, "\003");
    shows(&t, "Ctrl-C again, leaves");
    type(&t, "\003");
    assert_int_equal(finish(&t), 0);
}

static void test_ways_out(void **state)
{
    (void)state;
    static const struct { const char *keys; int number; } ways[] = {{"\004", 0}, {"/exit\r", 0}, {"\003\003", 0}, {"", SIGTERM}, {"", SIGHUP}, {"Once more\r\004", 0}};
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        struct terminal t;
        char *path = in_home("out.json");
        START_TUI(&t, "--max-tokens", "2", "--save-history", path);
        type(&t, "Once\r");
        shows(&t, "cut after");
        idle(&t);
        remove(path);
        if (ways[i].number) kill(t.pid, ways[i].number);
        else if (strcmp(ways[i].keys, "\003\003") == 0) type(&t, "\003"), shows(&t, "again"), type(&t, "\003");
        else type(&t, ways[i].keys);
        while (receive(&t, 1000)) {}
        assert_non_null(strstr(t.text, "\033[?1049l")); /* the terminal is as it was */
        assert_int_equal(finish(&t), ways[i].number ? 128 + ways[i].number : 0);
        file_has(path, "\"Once\"");
    }
}

static void test_refused(void **state)
{
    (void)state;
    struct terminal t;
    START(&t, "--tui", "-p", "Once");
    expect(&t, "--tui is for conversations");
    assert_int_equal(finish(&t), 2);
    char command[600];
    snprintf(command, sizeof command, "%s --tui -c /dev/null -m %s </dev/null 2>%s; test $? = 2", KAGARI, MODEL, in_home("refused"));
    assert_int_equal(system(command), 0);
    file_has(in_home("refused"), "--tui needs a terminal");
    setenv("TERM_OF_TEST", "nonsense", 1);
    START(&t, "--tui");
    expect(&t, "does not know this terminal: TERM is 'nonsense'");
    assert_int_equal(finish(&t), 1);
    unsetenv("TERM_OF_TEST");
}

/* ---- TAB ------------------------------------------------------------------------------------------------------------- */

static void test_tab(void **state)
{
    (void)state;
    struct terminal t;
    char *folder = in_home("tab");
    mkdir(folder, 0700);
    mkdir(in_home("tab/inner"), 0700);
    write_file(in_home("tab/alpha-1.gguf"), "");
    write_file(in_home("tab/alpha-2.gguf"), "");
    write_file(in_home("tab/other.json"), "");
    START_TUI(&t, "--max-tokens", "2");
    type(&t, "/he\t");
    shows(&t, "> /help");
    type(&t, "\025/c\t"); /* /clear, /config */
    shows(&t, " /clear  /config ");
    type(&t, "o\ts\t");
    shows(&t, "> /config save");
    type(&t, "\025/backend ref\t");
    shows(&t, "> /backend reference");
    type(&t, "\025/model ~/tab/al\t");
    shows(&t, " alpha-1.gguf  alpha-2.gguf ");
    type(&t, "2\t");
    shows(&t, "> /model ~/tab/alpha-2.gguf");
    type(&t, "\025/load ~/tab/o\t");
    shows(&t, "> /load ~/tab/other.json");
    type(&t, "\025/model ~/tab/o\t\025/model ~/tab/i\t"); /* no model; a folder */
    shows(&t, "> /model ~/tab/inner/");
    type(&t, "\025no command\t\r");
    shows(&t, "  no command");
    idle(&t);
    leave(&t);

    START(&t, "--max-tokens", "2"); /* and in the line */
    tell(&t, "/sta\t\n");
    expect(&t, "messages  0");
    tell(&t, "/c\t");
    expect(&t, "/clear");
    expect(&t, "/config");
    type(&t, "o\t");
    expect(&t, "nfig");
    type(&t, "\025/backend ref\t\n");
    expect(&t, "reference backend");
    tell(&t, "/model ~/tab/al\t");
    expect(&t, "pha-");
    type(&t, "\t");
    expect(&t, "alpha-1.gguf");
    expect(&t, "alpha-2.gguf");
    type(&t, "\025Once\n");
    expect(&t, "Assistant> ");
    tell(&t, "\004");
    assert_int_equal(finish(&t), 0);
}

/* ---- commands, in both faces ------------------------------------------------------------------------------------------- */

/* In this order, in one conversation. Every name that /help lists must be among them. */
static const struct command {
    const char *typed, *expected;
} all_commands[] = {
    {"Once", "cut after --max-tokens"},
    {"/help", "/backend [NAME]"},
    {"/h", "/exit /quit /q"},
    {"/?", "/config /cfg [save [FILE]]"},
    {"/system Be brief.", "System prompt: Be brief."},
    {"/sys", "System prompt: Be brief."},
    {"/backend reference", "llama, reference backend"},
    {"/backend nonsense", "Backend 'nonsense' is not available"},
    {"/model " MODEL, "llama, reference backend"},
    {"/model /nowhere.gguf", "Model file not found: /nowhere.gguf"},
    {"/stats", "messages  2 and a system prompt"},
    {"/status", "total     1 answers"},
    {"/save ~/both.json", "Saved in"},
    {"/clear", "forgotten"},
    {"/stats", "messages  0 and a system prompt"},
    {"/load ~/both.json", "2 messages of"},
    {"/cls", "forgotten"},
    {"/lora", "There are no adapters"},
    {"/lora ~/peft", "1  /tmp/kagari-pty-"},
    {"/lora peft=0.25", "peft  0.25"},
    {"/lora 1=-0.5", "peft  -0.5"},
    {"/lora 2", "there is no adapter 2"},
    {"/lora ~/nowhere", "/nowhere"},
    {"/lora none", "There are no adapters"},
    {"/template", "Chat template off"},
    {"/toggle", "Chat template on"},
    {"/tmp", "Chat template off"},
    {"/t", "Chat template on"},
    {"/config", "max_tokens = 2  # command line: --max-tokens"},
    {"/cfg save ~/both.toml", "Saved in"},
    {"/modle", "the nearest is /model"},
    {"/clear now", "takes no argument"},
};
static const char *const ways_out[] = {"/exit", "/quit", "/q"};

static bool is_shown(const char *name)
{
    size_t n = strlen(name);
    for (size_t i = 0; i < sizeof all_commands / sizeof *all_commands; i++)
        if (strncmp(all_commands[i].typed, name, n) == 0 && strchr(" ", all_commands[i].typed[n])) return true;
    for (size_t i = 0; i < sizeof ways_out / sizeof *ways_out; i++)
        if (strcmp(ways_out[i], name) == 0) return true;
    return false;
}

/* The names at the beginning of each line of /help. */
static void check_names(const char *help)
{
    size_t n = 0;
    for (const char *line = strstr(help, "  /"); line && line[0] == ' '; line = strchr(line, '\n') + 1)
        for (const char *p = line + 2; *p == '/'; p += strcspn(p, " "), p += *p == ' ') {
            char name[64];
            snprintf(name, sizeof name, "%.*s", (int)strcspn(p, " "), p);
            if (!is_shown(name)) fail_msg("%s is not demonstrated", name);
            n++;
        }
    assert_true(n > 20);
}

static void test_commands(void **state)
{
    (void)state;
    struct terminal t;
    char *template = in_home("both.jinja");
    setenv("HOME", home, 1);
    write_adapter_folder(in_home("peft"));
    write_file(template, "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}");
    for (size_t way = 0; way < 3; way++) {
        START(&t, "--max-tokens", "2", "--template", template);
        for (size_t i = 0; way == 0 && i < sizeof all_commands / sizeof *all_commands; i++) {
            tell(&t, all_commands[i].typed);
            type(&t, "\n");
            expect(&t, all_commands[i].expected);
            if (i == 1) {
                expect(&t, "You> ");
                check_names(strstr(t.text, "  /help"));
                t.seen -= 5;
            }
        }
        tell(&t, ways_out[way]);
        type(&t, "\n");
        assert_int_equal(finish(&t), 0);
    }
    for (size_t way = 0; way < 3; way++) {
        START_TUI(&t, "--max-tokens", "2", "--template", template);
        resize(&t, 70, 110);
        for (size_t i = 0; way == 0 && i < sizeof all_commands / sizeof *all_commands; i++) {
            type(&t, all_commands[i].typed);
            type(&t, "\r");
            shows(&t, all_commands[i].expected);
            idle(&t);
        }
        type(&t, ways_out[way]);
        type(&t, "\r");
        assert_int_equal(finish(&t), 0);
    }
    file_has(in_home("both.toml"), "max_tokens = 2");
    file_has(in_home("both.json"), "Be brief.");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_panes),     cmocka_unit_test(test_characters), cmocka_unit_test(test_lines),    cmocka_unit_test(test_scroll),
        cmocka_unit_test(test_sizes),     cmocka_unit_test(test_colors),     cmocka_unit_test(test_thinking), cmocka_unit_test(test_interrupt),
        cmocka_unit_test(test_ways_out),  cmocka_unit_test(test_refused),    cmocka_unit_test(test_tab),
        cmocka_unit_test(test_commands),
    };
    return cmocka_run_group_tests(tests, make_home, remove_home);
}
