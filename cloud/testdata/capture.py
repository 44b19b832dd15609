"""Runs the official SDK against a local listener and prints what it sent, as JSON.

    python3 -m venv venv
    venv/bin/pip install alibabacloud-ecs20140526 alibabacloud-vpc20160428
    venv/bin/python capture.py > sdk-requests.json
"""

import json
import threading
from urllib.parse import parse_qsl
from http.server import BaseHTTPRequestHandler, HTTPServer
from alibabacloud_ecs20140526.client import Client as Ecs
from alibabacloud_ecs20140526 import models as m
from alibabacloud_vpc20160428.client import Client as Vpc
from alibabacloud_vpc20160428 import models as v
from alibabacloud_tea_openapi import models as o

seen = []


class Listener(BaseHTTPRequestHandler):
    def do_POST(self):
        headers = {name.lower(): value for name, value in self.headers.items()}
        authorization = headers.pop("authorization")
        path, _, query = self.path.partition("?")
        assert (path, headers["content-length"]) == ("/", "0")
        parameters = parse_qsl(query, keep_blank_values=True)
        seen.append({"parameters": parameters, "headers": headers, "authorization": authorization})
        body = b'{"RequestId":"r"}'
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = HTTPServer(("127.0.0.1", 0), Listener)
threading.Thread(target=server.serve_forever, daemon=True).start()
endpoint = f"127.0.0.1:{server.server_port}"
AK, SK, TOKEN = "LTAItestkeyid", "test secret/with+odd=characters", "CAIStoken/+=="
def conf(token=None): return o.Config(access_key_id=AK, access_key_secret=SK, security_token=token, endpoint=endpoint, region_id="cn-hangzhou", protocol="http")
e, sts, p = Ecs(conf()), Ecs(conf(TOKEN)), Vpc(conf())
e.create_network_interface(m.CreateNetworkInterfaceRequest(region_id="cn-hangzhou", v_switch_id="vsw-1", instance_type="Secondary", security_group_ids=["sg-1", "sg-2"], secondary_private_ip_address_count=9, ipv_6address_count=10, delete_on_release=True, source_dest_check=False, client_token="123e4567-e89b-12d3-a456-426655440000", description="interface of terway", resource_group_id="rg-1", tag=[m.CreateNetworkInterfaceRequestTag(key="ack.aliyun.com", value="c 1/2+3=4*~ä名"), m.CreateNetworkInterfaceRequestTag(key="creator", value="terway")]))
sts.create_network_interface(m.CreateNetworkInterfaceRequest(region_id="cn-hangzhou", v_switch_id="vsw-1", instance_type="Trunk", security_group_ids=["sg-1"], ipv_4prefix_count=2, ipv_6prefix_count=1, client_token="t"))
e.describe_network_interfaces(m.DescribeNetworkInterfacesRequest(region_id="cn-hangzhou", network_interface_id=[f"eni-{i}" for i in range(1, 13)], instance_id="i-1", vpc_id="vpc-1", type="Member", status="InUse", max_results=500, next_token="AAAAA+/=", tag=[m.DescribeNetworkInterfacesRequestTag(key="creator", value="terway")]))
e.attach_network_interface(m.AttachNetworkInterfaceRequest(region_id="cn-hangzhou", network_interface_id="eni-1", instance_id="i-1", trunk_network_instance_id="eni-trunk", network_card_index=0))
e.detach_network_interface(m.DetachNetworkInterfaceRequest(region_id="cn-hangzhou", network_interface_id="eni-1", instance_id="i-1", trunk_network_instance_id="eni-trunk"))
e.delete_network_interface(m.DeleteNetworkInterfaceRequest(region_id="cn-hangzhou", network_interface_id="eni-1"))
e.assign_private_ip_addresses(m.AssignPrivateIpAddressesRequest(region_id="cn-hangzhou", network_interface_id="eni-1", secondary_private_ip_address_count=10, client_token="t"))
e.unassign_private_ip_addresses(m.UnassignPrivateIpAddressesRequest(region_id="cn-hangzhou", network_interface_id="eni-1", private_ip_address=["10.0.1.5", "10.0.1.6"]))
sts.assign_ipv_6addresses(m.AssignIpv6AddressesRequest(region_id="cn-hangzhou", network_interface_id="eni-1", ipv_6address=["2408::5", "2408::6"], client_token="t"))
e.unassign_ipv_6addresses(m.UnassignIpv6AddressesRequest(region_id="cn-hangzhou", network_interface_id="eni-1", ipv_6address=["2408::5"]))
e.assign_private_ip_addresses(m.AssignPrivateIpAddressesRequest(region_id="cn-hangzhou", network_interface_id="eni-1", ipv_4prefix_count=3, client_token="t"))
e.unassign_private_ip_addresses(m.UnassignPrivateIpAddressesRequest(region_id="cn-hangzhou", network_interface_id="eni-1", ipv_4prefix=["10.0.1.16/28", "10.0.1.32/28"]))
e.assign_ipv_6addresses(m.AssignIpv6AddressesRequest(region_id="cn-hangzhou", network_interface_id="eni-1", ipv_6prefix_count=3, client_token="t"))
e.unassign_ipv_6addresses(m.UnassignIpv6AddressesRequest(region_id="cn-hangzhou", network_interface_id="eni-1", ipv_6prefix=["2408::1:0:0:0/80"]))
e.describe_instance_types(m.DescribeInstanceTypesRequest(instance_types=["ecs.g7.4xlarge"]))
p.describe_vswitches(v.DescribeVSwitchesRequest(region_id="cn-hangzhou", v_switch_id="vsw-1"))

lines = ",\n".join(json.dumps(request, ensure_ascii=False) for request in seen)
print(f'{{"access_key_id": {json.dumps(AK)}, "access_key_secret": {json.dumps(SK)}, "requests": [\n{lines}\n]}}')
