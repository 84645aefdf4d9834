from fastapi import APIRouter, status

from webshop import services
from webshop.api.dependencies import PageDep, SessionDep
from webshop.models import Product
from webshop.schemas import ProductIn, ProductOut, ProductUpdate

router = APIRouter(prefix="/products", tags=["products"])


@router.get("", response_model=list[ProductOut])
def list_products(session: SessionDep, page: PageDep, category: str | None = None) -> list[Product]:
    return services.list_products(session, category=category, limit=page.limit, offset=page.offset)


@router.post("", response_model=ProductOut, status_code=status.HTTP_201_CREATED)
def add_product(session: SessionDep, product: ProductIn) -> Product:
    return services.add_product(session, Product(**product.model_dump()))


@router.get("/{sku}", response_model=ProductOut)
def get_product(session: SessionDep, sku: str) -> Product:
    return services.get_product(session, sku)


@router.patch("/{sku}", response_model=ProductOut)
def update_product(session: SessionDep, sku: str, changes: ProductUpdate) -> Product:
    product = services.get_product(session, sku)
    for name, value in changes.model_dump(exclude_none=True).items():
        setattr(product, name, value)
    return product
