/* The bare event loop of event_loop/kernel.py in C: two NICs, a heap, copies, a one-line IOTLB look-up, ACKs.
   c_loop MESSAGE_BYTES MTU: prints wall and CPU seconds of the run, then counts. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

enum { SEND, ARRIVE, ACK, LINES = 1024, PAGE = 4096, PACKETS = 4096, WINDOW = 128, DELAY_NS = 1000, PS_PER_BYTE = 80 };
struct event { int64_t time, sequence, kind, row; };
struct packet { int64_t psn, va, length, last, next; };
struct line { int64_t page, address; };

static struct event heap[1 << 12];
static struct packet packets[PACKETS];
static struct line source_lines[LINES], target_lines[LINES];
static int64_t pending, sequence, now, ran, free_packet, port_free;
static int64_t psn, acked, epsn, msn, left, in_flight, offset, stopped, mtu, message;
static int64_t *source_mtt, *target_mtt;
static char *payload;

static int before(const struct event *a, const struct event *b)
{
    return a->time < b->time || (a->time == b->time && a->sequence < b->sequence);
}

static void push(int64_t time, int64_t kind, int64_t row)
{
    struct event e = {time, sequence++, kind, row};
    int64_t i = pending++;
    for (; i > 0 && before(&e, &heap[(i - 1) / 2]); i = (i - 1) / 2)
        heap[i] = heap[(i - 1) / 2];
    heap[i] = e;
}

static struct event pop(void)
{
    struct event first = heap[0], last = heap[--pending];
    int64_t i = 0, child;
    while ((child = 2 * i + 1) < pending) {
        if (child + 1 < pending && before(&heap[child + 1], &heap[child]))
            child++;
        if (before(&last, &heap[child]))
            break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = last;
    return first;
}

static char *translate(struct line *lines, const int64_t *mtt, int64_t va)
{
    struct line *line = &lines[va / PAGE % LINES];
    if (line->page != va / PAGE) {
        line->page = va / PAGE;
        line->address = mtt[va / PAGE];
    }
    return (char *)line->address + va % PAGE;
}

static void release(int64_t number)
{
    packets[number].next = free_packet;
    free_packet = number;
}

static void transmit(void)
{
    if (!left)
        return;
    if (in_flight >= WINDOW) {
        stopped = 1;
        return;
    }
    int64_t number = free_packet, length = message - offset < mtu ? message - offset : mtu;
    struct packet *p = &packets[number];
    free_packet = p->next;
    memcpy(payload + number * PAGE, translate(source_lines, source_mtt, offset), length);
    *p = (struct packet){psn++, offset, length, offset + length >= message, 0};
    in_flight++;
    offset += length;
    if (p->last) {
        offset = 0;
        left--;
    }
    port_free = (now > port_free ? now : port_free) + (length + 70) * PS_PER_BYTE / 1000;
    push(port_free + DELAY_NS, ARRIVE, number);
    push(port_free, SEND, 0);
}

static void arrive(int64_t number)
{
    struct packet *p = &packets[number];
    if (p->psn != epsn) {
        release(number);
        return;
    }
    epsn++;
    memcpy(translate(target_lines, target_mtt, p->va), payload + number * PAGE, p->length);
    msn += p->last;
    if (p->last || p->psn % 32 == 31)
        push(now + DELAY_NS + 75 * PS_PER_BYTE / 1000, ACK, number);
    else
        release(number);
}

static void acknowledge(int64_t number)
{
    in_flight -= packets[number].psn + 1 - acked;
    acked = packets[number].psn + 1;
    release(number);
    if (stopped) {
        stopped = 0;
        push(now, SEND, 0);
    }
}

static int64_t *buffer(char **bytes)
{
    int64_t pages = (message + PAGE - 1) / PAGE, *mtt = malloc(pages * sizeof *mtt);
    *bytes = aligned_alloc(PAGE, pages * PAGE);
    for (int64_t i = 0; i < pages; i++)
        mtt[i] = (int64_t)(*bytes + i * PAGE);
    return mtt;
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void run(int64_t messages)
{
    left = messages;
    push(now, SEND, 0);
    while (pending) {
        struct event e = pop();
        now = e.time;
        ran++;
        e.kind == SEND ? transmit() : e.kind == ARRIVE ? arrive(e.row) : acknowledge(e.row);
    }
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    message = atoll(argv[1]), mtu = atoll(argv[2]);
    char *source, *target;
    source_mtt = buffer(&source), target_mtt = buffer(&target), payload = aligned_alloc(PAGE, PACKETS * PAGE);
    memset(source, 7, message), memset(target, 0, message), memset(payload, 0, PACKETS * PAGE);
    for (int64_t i = 1; i < PACKETS; i++)
        release(i);
    for (int64_t i = 0; i < LINES; i++)
        source_lines[i].page = target_lines[i].page = -1;
    int64_t messages = (512 << 20) / message < 600000 ? (512 << 20) / message : 600000;
    run(messages / 16 + 1);
    int64_t began = now, before_run = ran, packets_before = psn;
    double wall = seconds(), cpu = cpu_seconds();
    run(messages);
    printf("%.9f %.9f", seconds() - wall, cpu_seconds() - cpu);
    printf(" messages %ld packets %ld bytes %ld events %ld virtual_ns %ld\n", (long)messages,
           (long)(psn - packets_before), (long)(messages * message), (long)(ran - before_run), (long)(now - began));
    return memcmp(source, target, message) || msn != messages + messages / 16 + 1;
}
