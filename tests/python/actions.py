"""Every action of the cloud by one of the official SDKs; each answer is held against the reference.

Arguments: one JSON object with sdk (newer, older), ecs, vpc (host:port), region, key, secret,
instance, vswitch, group, and perhaps ca (a file; then it speaks HTTPS) and form (parameters in the body).
Output: one JSON object: problems, the actions that were called, and what was seen on the way.
"""

import json
import sys
import time

from reference import Reference
from sdks import Newer, Older, Refused, unknown_to_the_models

lab = json.loads(sys.argv[1])
sdk = {"newer": Newer, "older": Older}[lab["sdk"]](lab)
reference = Reference()
seen = {}


def call(action, **parameters):
    if action != "DescribeInstanceTypes":
        parameters["RegionId"] = lab["region"]
    answer = sdk.call(action, parameters)
    reference.check(action, answer)
    for lost in unknown_to_the_models(action, answer):
        reference.problems.append(f"{action}: {lost} is unknown to the newer SDK")
    return answer


def refused(action, **parameters):
    try:
        call(action, **parameters)
    except Refused as refusal:
        return [refusal.status, refusal.code]
    return "not refused"


def enis(**filters):
    return call("DescribeNetworkInterfaces", **filters)["NetworkInterfaceSets"]["NetworkInterfaceSet"]


def until(eni, status):
    for _attempt in range(500):
        found = enis(NetworkInterfaceId=[eni])[0]
        if found["Status"] == status:
            return found
        time.sleep(0.01)
    raise SystemExit(f"{eni} is {found['Status']} and not {status}")


def networks():
    call("DescribeVpcs", PageNumber=1, PageSize=10)
    found = call("DescribeVSwitches", VSwitchId=lab["vswitch"])["VSwitches"]["VSwitch"][0]
    one = call("DescribeVSwitchAttributes", VSwitchId=lab["vswitch"])
    seen["same vswitch"] = {**found, "RequestId": one["RequestId"]} == one
    seen["no vswitch"] = refused("DescribeVSwitchAttributes", VSwitchId="vsw-none")


def instances():
    kind = call("DescribeInstanceTypes", InstanceTypes=["ecs.g7.4xlarge"])
    seen["type"] = kind["InstanceTypes"]["InstanceType"][0]["EniQuantity"]
    found = call("DescribeInstances", InstanceIds=json.dumps([lab["instance"]]))
    found = found["Instances"]["Instance"][0]
    seen["instance"] = [found["Status"], len(found["NetworkInterfaces"]["NetworkInterface"])]


def groups():
    tag = [{"Key": "creator", "Value": "sdk"}]
    made = call("CreateSecurityGroup", VpcId="vpc-lab", SecurityGroupName="of-sdk", Tag=tag, ClientToken=lab["sdk"])
    group = made["SecurityGroupId"]
    shown = call("DescribeSecurityGroups", SecurityGroupId=group)["SecurityGroups"]["SecurityGroup"]
    seen["groups"] = [one["SecurityGroupName"] for one in shown]
    web = {"IpProtocol": "tcp", "PortRange": "80/80", "SourceCidrIp": "10.0.0.0/8", "Description": "web"}
    call("AuthorizeSecurityGroup", SecurityGroupId=group, Permissions=[web, {**web, "PortRange": "443/443"}])
    out = {"IpProtocol": "udp", "PortRange": "53/53", "DestCidrIp": "10.0.0.0/8"}
    call("AuthorizeSecurityGroupEgress", SecurityGroupId=group, **out)
    call("ModifySecurityGroupPolicy", SecurityGroupId=group, InnerAccessPolicy="Drop")
    rules = call("DescribeSecurityGroupAttribute", SecurityGroupId=group)
    seen["rules"] = [len(rules["Permissions"]["Permission"]), rules["InnerAccessPolicy"]]
    call("RevokeSecurityGroup", SecurityGroupId=group, Permissions=[web])
    call("RevokeSecurityGroupEgress", SecurityGroupId=group, **out)
    rules = call("DescribeSecurityGroupAttribute", SecurityGroupId=group, Direction="all")
    seen["rules left"] = [rule["PortRange"] for rule in rules["Permissions"]["Permission"]]


def create(kind, **more):
    return call(
        "CreateNetworkInterface",
        VSwitchId=lab["vswitch"],
        SecurityGroupIds=[lab["group"]],
        InstanceType=kind,
        SourceDestCheck=False,
        Tag=[{"Key": "creator", "Value": lab["sdk"]}, {"Key": "with space/&=+*~", "Value": "ä 1"}],
        **more,
    )["NetworkInterfaceId"]


def place(eni, trunk=None):
    where = {"NetworkInterfaceId": eni, "InstanceId": lab["instance"]}
    return {**where, "TrunkNetworkInstanceId": trunk} if trunk else where


def grow(eni):
    """Addresses and prefixes come and go."""
    v4 = call("AssignPrivateIpAddresses", NetworkInterfaceId=eni, SecondaryPrivateIpAddressCount=2, ClientToken=f"{eni}-4")
    v4 = v4["AssignedPrivateIpAddressesSet"]["PrivateIpSet"]["PrivateIpAddress"]
    blocks = call("AssignPrivateIpAddresses", NetworkInterfaceId=eni, Ipv4PrefixCount=1)
    blocks = blocks["AssignedPrivateIpAddressesSet"]["Ipv4PrefixSet"]["Ipv4Prefixes"]
    v6 = call("AssignIpv6Addresses", NetworkInterfaceId=eni, Ipv6AddressCount=1)["Ipv6Sets"]["Ipv6Address"]
    wide = call("AssignIpv6Addresses", NetworkInterfaceId=eni, Ipv6PrefixCount=1)["Ipv6PrefixSets"]["Ipv6Prefix"]
    one = call("DescribeNetworkInterfaceAttribute", NetworkInterfaceId=eni)
    seen["grown"] = owned(one) == owned(enis(NetworkInterfaceId=[eni])[0]) and owned(one)
    call("UnassignPrivateIpAddresses", NetworkInterfaceId=eni, PrivateIpAddress=v4)
    call("UnassignPrivateIpAddresses", NetworkInterfaceId=eni, Ipv4Prefix=blocks)
    call("UnassignIpv6Addresses", NetworkInterfaceId=eni, Ipv6Address=v6)
    call("UnassignIpv6Addresses", NetworkInterfaceId=eni, Ipv6Prefix=wide)
    seen["shrunk"] = owned(enis(NetworkInterfaceId=[eni])[0])


def owned(eni):
    """How many of each."""
    return [
        len(eni["PrivateIpSets"]["PrivateIpSet"]),
        len(eni["Ipv6Sets"]["Ipv6Set"]),
        len(eni["Ipv4PrefixSets"]["Ipv4PrefixSet"]),
        len(eni["Ipv6PrefixSets"]["Ipv6PrefixSet"]),
    ]


def pages(**filters):
    """All ids by NextToken."""
    ids, token = [], ""
    for _page in range(100):
        page = call("DescribeNetworkInterfaces", MaxResults=1, **filters, **({"NextToken": token} if token else {}))
        ids += [eni["NetworkInterfaceId"] for eni in page["NetworkInterfaceSets"]["NetworkInterfaceSet"]]
        token = page["NextToken"]
        if not token:
            return ids
    raise SystemExit("the pages do not end")


def life():
    trunk = create("Trunk", ClientToken=f"{lab['sdk']}-trunk")
    seen["again"] = create("Trunk", ClientToken=f"{lab['sdk']}-trunk") == trunk
    seen["mismatch"] = refused("CreateNetworkInterface", VSwitchId=lab["vswitch"], ClientToken=f"{lab['sdk']}-trunk")
    call("AttachNetworkInterface", **place(trunk))
    until(trunk, "InUse")
    member = create("Secondary", Ipv4PrefixCount=1, Ipv6AddressCount=1)
    wide = create("Secondary", SecondaryPrivateIpAddressCount=1, Ipv6PrefixCount=1)
    tags = [{"Key": "creator", "Value": lab["sdk"]}]
    seen["paged"] = pages(Tag=tags) == [trunk, member, wide] == [eni["NetworkInterfaceId"] for eni in enis(Tag=tags, PageNumber=1, PageSize=50)]
    call("AttachNetworkInterface", **place(member, trunk))
    seen["vlan"] = until(member, "InUse")["Attachment"]["DeviceIndex"]
    grow(member)
    call("ModifyNetworkInterfaceAttribute", NetworkInterfaceId=member, Description="of the SDK", SecurityGroupId=[lab["group"]])
    call("TagResources", ResourceType="eni", ResourceId=[member], Tag=[{"Key": "more", "Value": ""}])
    shown = call("DescribeNetworkInterfaceAttribute", NetworkInterfaceId=member)
    seen["modified"] = [shown["Description"], len(shown["Tags"]["Tag"])]
    shown = call("DescribeNetworkInterfaceAttribute", NetworkInterfaceId=trunk)
    seen["members"] = shown["Attachment"]["MemberNetworkInterfaceIds"]["MemberNetworkInterfaceId"] == [member]
    seen["linked"] = refused("DetachNetworkInterface", **place(trunk))
    call("DetachNetworkInterface", **place(member, trunk))
    until(member, "Available")
    call("DetachNetworkInterface", **place(trunk))
    until(trunk, "Available")
    for eni in (wide, member, trunk):
        call("DeleteNetworkInterface", NetworkInterfaceId=eni)
    seen["gone"] = refused("DeleteNetworkInterface", NetworkInterfaceId=member)
    seen["left"] = len(enis(Tag=tags))


networks()
instances()
groups()
life()
print(json.dumps({
    "problems": reference.problems,
    "never_seen": reference.never_seen(),
    "actions": sorted(reference.seen),
    "seen": seen,
}))
