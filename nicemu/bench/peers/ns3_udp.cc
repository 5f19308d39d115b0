// Two hosts on a link of 100 Gb/s and 1 us: UDP datagrams with real payload, 128 of them under way, an answer to each
// 16th. Payload is copied into each packet and out of it, and compared at the end.
// ns3_udp PAYLOAD_BYTES PACKETS: prints wall and CPU seconds of Simulator::Run, then counts.
#include <ctime>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "ns3/core-module.h"
#include "ns3/internet-module.h"
#include "ns3/network-module.h"
#include "ns3/point-to-point-module.h"

using namespace ns3;

namespace {

constexpr uint32_t kWindow = 128, kAckEvery = 16, kAckBytes = 16, kPort = 4791;
uint32_t payload, total, sent, acked, received;
std::vector<uint8_t> source, target;
Ptr<Socket> sender, receiver;

void SendMore()
{
    while (sent < total && sent - acked < kWindow)
    {
        sender->Send(Create<Packet>(source.data(), payload));
        sent++;
    }
}

void Arrived(Ptr<Socket> socket)
{
    Address from;
    while (Ptr<Packet> packet = socket->RecvFrom(from))
    {
        packet->CopyData(target.data(), payload);
        if (++received % kAckEvery == 0)
            socket->SendTo(Create<Packet>(kAckBytes), 0, from);
    }
}

void Acknowledged(Ptr<Socket> socket)
{
    while (socket->Recv())
        acked += kAckEvery;
    SendMore();
}

double Elapsed(clockid_t clock)
{
    timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

Ptr<Socket> Opened(Ptr<Node> node)
{
    Ptr<Socket> socket = Socket::CreateSocket(node, UdpSocketFactory::GetTypeId());
    socket->SetAttribute("RcvBufSize", UintegerValue(1 << 26));
    return socket;
}

} // namespace

int main(int argc, char** argv)
{
    if (argc != 3)
        return 2;
    payload = atoi(argv[1]), total = atoi(argv[2]);
    source.assign(payload, 7), target.assign(payload, 0);

    NodeContainer nodes;
    nodes.Create(2);
    PointToPointHelper link;
    link.SetDeviceAttribute("DataRate", StringValue("100Gbps"));
    link.SetDeviceAttribute("Mtu", UintegerValue(9000));
    link.SetChannelAttribute("Delay", StringValue("1us"));
    link.SetQueue("ns3::DropTailQueue", "MaxSize", StringValue("1000p"));
    NetDeviceContainer devices = link.Install(nodes);
    InternetStackHelper stack;
    stack.SetIpv6StackInstall(false);
    stack.Install(nodes);
    Ipv4AddressHelper addresses;
    addresses.SetBase("10.0.0.0", "255.255.255.0");
    Ipv4InterfaceContainer interfaces = addresses.Assign(devices);

    receiver = Opened(nodes.Get(1));
    receiver->Bind(InetSocketAddress(Ipv4Address::GetAny(), kPort));
    receiver->SetRecvCallback(MakeCallback(&Arrived));
    sender = Opened(nodes.Get(0));
    sender->Bind();
    sender->Connect(InetSocketAddress(interfaces.GetAddress(1), kPort));
    sender->SetRecvCallback(MakeCallback(&Acknowledged));
    Simulator::Schedule(Time(0), &SendMore);

    double wall = Elapsed(CLOCK_MONOTONIC), cpu = Elapsed(CLOCK_PROCESS_CPUTIME_ID);
    Simulator::Run();
    wall = Elapsed(CLOCK_MONOTONIC) - wall, cpu = Elapsed(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    std::printf("%.9f %.9f packets %u bytes %.0f events %.0f virtual_ns %.0f\n", wall, cpu, received,
                double(received) * payload, double(Simulator::GetEventCount()),
                double(Simulator::Now().GetNanoSeconds()));
    Simulator::Destroy();
    return received != total || source != target;
}
