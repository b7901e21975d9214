# shop.py, another service
from bank import Bank
from kubeactor.client import connect, idempotency_key

async def pay(order: str, price: int) -> int:
    async with connect(Bank, "http://bank-api.default:8081") as bank:
        with idempotency_key(order):
            return await bank.ACCOUNT.id_from_name("alice").debit(price)
