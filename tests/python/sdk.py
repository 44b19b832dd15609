"""The life of ENIs, as the official SDK of the cloud drives it, unchanged.

Arguments: one JSON object with ecs, vpc (host:port), region, key, secret, instance, vswitch, group.
Output: one JSON object, what the SDK read at each step.
"""

import json
import sys
import time

from alibabacloud_ecs20140526 import models as ecs_models
from alibabacloud_ecs20140526.client import Client as Ecs
from alibabacloud_tea_openapi.models import Config
from alibabacloud_vpc20160428 import models as vpc_models
from alibabacloud_vpc20160428.client import Client as Vpc

lab = json.loads(sys.argv[1])
region = lab["region"]


def config(endpoint):
    return Config(
        access_key_id=lab["key"],
        access_key_secret=lab["secret"],
        endpoint=endpoint,
        protocol="HTTP",
        region_id=region,
    )


ecs = Ecs(config(lab["ecs"]))
vpc = Vpc(config(lab["vpc"]))
seen = {}


def describe(**filters):
    request = ecs_models.DescribeNetworkInterfacesRequest(region_id=region, max_results=500, **filters)
    body = ecs.describe_network_interfaces(request).body
    return body.network_interface_sets.network_interface_set


def until(eni, status):
    for _attempt in range(500):
        found = describe(network_interface_id=[eni])[0]
        if found.status == status:
            return found
        time.sleep(0.01)
    raise SystemExit(f"{eni} is {found.status} and not {status}")


def create(kind, **more):
    request = ecs_models.CreateNetworkInterfaceRequest(
        region_id=region,
        v_switch_id=lab["vswitch"],
        security_group_ids=[lab["group"]],
        instance_type=kind,
        source_dest_check=False,
        tag=[
            ecs_models.CreateNetworkInterfaceRequestTag(key="creator", value="terway"),
            ecs_models.CreateNetworkInterfaceRequestTag(key="with space/&=+*~", value="ä 1"),
        ],
        **more,
    )
    return ecs.create_network_interface(request).body


def attach(eni, trunk=None):
    ecs.attach_network_interface(
        ecs_models.AttachNetworkInterfaceRequest(
            region_id=region,
            network_interface_id=eni,
            instance_id=lab["instance"],
            trunk_network_instance_id=trunk,
        )
    )
    return until(eni, "InUse")


def detach(eni, trunk=None):
    ecs.detach_network_interface(
        ecs_models.DetachNetworkInterfaceRequest(
            region_id=region,
            network_interface_id=eni,
            instance_id=lab["instance"],
            trunk_network_instance_id=trunk,
        )
    )
    return until(eni, "Available")


def delete(eni):
    request = ecs_models.DeleteNetworkInterfaceRequest(region_id=region, network_interface_id=eni)
    ecs.delete_network_interface(request)


def refused(call):
    try:
        call()
    except Exception as error:  # The SDK raises what it makes of the answer.
        return {"code": error.code, "status": error.data.get("statusCode")}
    return "not refused"


types = ecs.describe_instance_types(
    ecs_models.DescribeInstanceTypesRequest(instance_types=["ecs.g7.4xlarge"])
)
seen["type"] = types.body.instance_types.instance_type[0].to_map()
vswitches = vpc.describe_vswitches(
    vpc_models.DescribeVSwitchesRequest(region_id=region, v_switch_id=lab["vswitch"])
)
seen["vswitch"] = vswitches.body.v_switches.v_switch[0].to_map()

trunk = create("Trunk", client_token="trunk-1")
seen["created"] = trunk.to_map()
seen["again"] = create("Trunk", client_token="trunk-1").network_interface_id
seen["mismatch"] = refused(lambda: create("Secondary", client_token="trunk-1"))
seen["trunk"] = attach(trunk.network_interface_id).to_map()

# Enough of them that ".1", ".10" and ".11" have to be put in the order of the signature.
many = [f"eni-nobodys{number}" for number in range(11)] + [trunk.network_interface_id]
seen["among_many"] = [eni.network_interface_id for eni in describe(network_interface_id=many)]

member = create("Secondary", secondary_private_ip_address_count=1, ipv_6address_count=1)
member = member.network_interface_id
seen["member"] = attach(member, trunk.network_interface_id).to_map()
seen["members"] = len(describe(instance_id=lab["instance"], type="Member"))
tag = ecs_models.DescribeNetworkInterfacesRequestTag(key="creator", value="terway")
seen["tagged"] = sorted(eni.network_interface_id for eni in describe(tag=[tag]))

assigned = ecs.assign_private_ip_addresses(
    ecs_models.AssignPrivateIpAddressesRequest(
        region_id=region, network_interface_id=member, secondary_private_ip_address_count=2
    )
)
assigned = assigned.body.assigned_private_ip_addresses_set.private_ip_set.private_ip_address
seen["assigned"] = assigned
assigned_v6 = ecs.assign_ipv_6addresses(
    ecs_models.AssignIpv6AddressesRequest(
        region_id=region, network_interface_id=member, ipv_6address_count=1
    )
)
assigned_v6 = assigned_v6.body.ipv_6sets.ipv_6address
seen["assigned_v6"] = assigned_v6
seen["grown"] = until(member, "InUse").to_map()
ecs.unassign_private_ip_addresses(
    ecs_models.UnassignPrivateIpAddressesRequest(
        region_id=region, network_interface_id=member, private_ip_address=assigned
    )
)
ecs.unassign_ipv_6addresses(
    ecs_models.UnassignIpv6AddressesRequest(
        region_id=region, network_interface_id=member, ipv_6address=assigned_v6
    )
)
seen["shrunk"] = until(member, "InUse").to_map()

seen["linked"] = refused(lambda: detach(trunk.network_interface_id))
seen["detached"] = detach(member, trunk.network_interface_id).to_map()
delete(member)
detach(trunk.network_interface_id)
delete(trunk.network_interface_id)
seen["gone"] = refused(lambda: delete(member))
seen["left"] = len(describe(tag=[tag]))
print(json.dumps(seen))
