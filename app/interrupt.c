/* Owns the handlers. Calls that wait return with EINTR. */
#include "interrupt.h"

volatile sig_atomic_t interrupt_seen, interrupt_end;

static void on_signal(int number)
{
    if (number == SIGINT) interrupt_seen = 1;
    else interrupt_end = number;
}

void interrupt_catch(int once)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = once ? (int)SA_RESETHAND : 0};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    if (once) return;
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
    sigaction(SIGQUIT, &action, NULL);
}
