"""The same cloud by the older official SDK, which signs with HMAC-SHA1 in the parameters.

Arguments: one JSON object with ecs (host:port), region, key, secret, vswitch, group.
Output: one JSON object, what the SDK read.
"""

import json
import sys

from aliyunsdkcore.acs_exception.exceptions import ServerException
from aliyunsdkcore.client import AcsClient
from aliyunsdkecs.request.v20140526.CreateNetworkInterfaceRequest import (
    CreateNetworkInterfaceRequest,
)
from aliyunsdkecs.request.v20140526.DeleteNetworkInterfaceRequest import (
    DeleteNetworkInterfaceRequest,
)
from aliyunsdkecs.request.v20140526.DescribeNetworkInterfacesRequest import (
    DescribeNetworkInterfacesRequest,
)

lab = json.loads(sys.argv[1])


def send(request, secret=lab["secret"]):
    client = AcsClient(lab["key"], secret, lab["region"], auto_retry=False)
    request.set_endpoint(lab["ecs"])
    request.set_protocol_type("http")
    request.set_accept_format("json")
    return json.loads(client.do_action_with_exception(request))


create = CreateNetworkInterfaceRequest()
create.set_VSwitchId(lab["vswitch"])
create.set_SecurityGroupId(lab["group"])
create.set_Tags([{"Key": "creator", "Value": "older & ä"}])
eni = send(create)["NetworkInterfaceId"]

describe = DescribeNetworkInterfacesRequest()
describe.set_NetworkInterfaceIds([eni])
shown = send(describe)["NetworkInterfaceSets"]["NetworkInterfaceSet"]
# Enough of them that ".1", ".10" and ".11" have to be put in the order of the signature.
describe.set_NetworkInterfaceIds([f"eni-nobodys{number}" for number in range(11)] + [eni])
among_many = send(describe)["NetworkInterfaceSets"]["NetworkInterfaceSet"]

delete = DeleteNetworkInterfaceRequest()
delete.set_NetworkInterfaceId(eni)
try:
    send(delete, secret="wrong")
    forged = "not refused"
except ServerException as error:
    forged = error.get_error_code()
send(delete)
print(json.dumps({"eni": eni, "shown": shown, "among_many": among_many, "forged": forged}))
